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
  // What may follow `tokens` and `next` behind them: what followed the longest sequence there before, the last of equals, that ends as
  // these do, of `least` tokens (2 or more) at least. Up to twice as many as that is long, `most` at most. Good until the next call.
  std::span<const int32_t> guess(std::span<const int32_t> tokens, int32_t next, int64_t least, int64_t most);
  // How many of the last guesses, of which there were some, were right.
  void learn(int64_t right) { wrong_in_a_row_ = right > 0 ? 0 : wrong_in_a_row_ + 1; }

 private:
  std::vector<int32_t> guesses_;
  int64_t wrong_in_a_row_ = 0;
};

}  // namespace longview
