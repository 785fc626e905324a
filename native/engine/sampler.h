// Chooses the next token from logits.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace longview {

struct Sampling {
  float temperature = 0;  // 0: greedy, the rest is ignored
  int32_t top_k = 0;      // 0: no limit
  float top_p = 1;        // smallest set of tokens with this probability together
  float min_p = 0;        // at least this share of the best token's probability
  uint64_t seed = 0;
};

class Sampler {
 public:
  // Throws kInvalidArgument for values out of range.
  explicit Sampler(const Sampling& sampling);
  // Always takes the largest logit, as argmax does.
  bool greedy() const { return sampling_.temperature == 0; }
  // The same seed and logits give the same tokens, on every machine.
  int32_t choose(std::span<const float> logits);

 private:
  const Sampling sampling_;
  std::mt19937_64 random_;
  std::vector<int32_t> order_;
  std::vector<double> weights_;
};

}  // namespace longview
