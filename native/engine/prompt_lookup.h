// Guesses what an answer says next: answers quote what was read, so what followed the same words before may follow them again (prompt
// lookup decoding). The model checks a guess at little more than the price of one token, since its weights and the KV state are read once
// for all, and only what it would have said itself stays.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace longview {

class PromptLookup {
 public:
  // Tokens that are guessed at once. With the one before them they are rows that a GPU multiplies as cheaply as one.
  static constexpr int64_t kMostGuesses = 7;

  // `least`: tokens of the shortest sequence that counts, 2 or more.
  explicit PromptLookup(int64_t least = 2) : least_(least) {}

  // What may follow `tokens` and `next` behind them: what followed the longest sequence there before, the last of equals, that ends as
  // these do. Up to twice as many as that is long. Good until the next call.
  std::span<const int32_t> guess(std::span<const int32_t> tokens, int32_t next);
  // How many of the last guesses, of which there were some, were right.
  void learn(int64_t right) { wrong_in_a_row_ = right > 0 ? 0 : wrong_in_a_row_ + 1; }

 private:
  int64_t least_;
  std::vector<int32_t> guesses_;
  int64_t wrong_in_a_row_ = 0;
};

}  // namespace longview
