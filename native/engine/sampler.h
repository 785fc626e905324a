// Chooses the next token from logits.
#pragma once

#include <cstdint>
#include <random>
#include <span>

#include "base/draw.h"

namespace longview {

class Sampler {
 public:
  // Throws kInvalidArgument for values out of range.
  explicit Sampler(const Sampling& sampling);
  const Sampling& sampling() const { return sampling_; }
  // Always takes the largest logit, as argmax does.
  bool greedy() const { return sampling_.temperature == 0; }
  // The random number of the next draw().
  uint64_t random() { return random_(); }
  // The same seed and logits give the same tokens, on every machine.
  int32_t choose(std::span<const float> logits);

 private:
  const Sampling sampling_;
  std::mt19937_64 random_;
};

}  // namespace longview
