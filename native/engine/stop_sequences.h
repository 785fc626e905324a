// Token sequences that end an answer and are no part of it. What may be the beginning of one is held back until it is certain.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

namespace longview {

class StopSequences {
 public:
  // Empty sequences are ignored.
  explicit StopSequences(std::vector<std::vector<int32_t>> sequences);

  // Takes the next token. True: a sequence is complete; it is what is held when all that is certain has been released.
  bool push(int32_t token);
  // Whether a token by itself is one of the sequences.
  bool ends_alone(int32_t token) const;
  // The next token that belongs to the answer for certain; false where there is none yet.
  bool release(int32_t& token);
  // Gives up waiting: all that is held back belongs to the answer.
  void finish() { certain_ = held_.size(); }
  // Tokens taken and not released.
  int64_t held() const { return static_cast<int64_t>(held_.size()); }

 private:
  // Whether the held tokens from `begin` on are the first ones of `sequence`.
  bool begins(const std::vector<int32_t>& sequence, size_t begin) const;

  std::vector<std::vector<int32_t>> sequences_;
  std::deque<int32_t> held_;
  size_t certain_ = 0;  // of held_, from the front
};

}  // namespace longview
