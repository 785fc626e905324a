// Drawing a token by its probability. All arithmetic is on integers, but for one difference and one product of doubles, so that the
// same logits and the same random number give the same token on every machine and every device (kernels/elementwise/draw.cu).
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

namespace longview {

struct Sampling {
  float temperature = 0;  // 0: greedy, the rest is ignored
  int32_t top_k = 0;      // tokens with fewer than so many above them; 0: no limit
  float top_p = 1;        // tokens with less than this probability above them together, and the best
  float min_p = 0;        // at least this share of the best token's probability
  uint64_t seed = 0;

  // What draw() makes of them: a weight is 2^(-scale() * distance to the largest logit), in units of 2^-31, and at least least_weight().
  double scale() const { return 1.44269504088896340736 / static_cast<double>(temperature); }
  uint32_t least_weight() const { return static_cast<uint32_t>(std::ceil(static_cast<double>(min_p) * 0x1p31)); }
};

// The largest logit's token, and one that was drawn.
struct Drawn {
  int32_t largest, token;
};

// A token of `logits` by `random`, under temperature, top_k, top_p and min_p; equals share each limit. NaN is never drawn, unless all are
// NaN: then, and where the largest is infinite, as argmax(). `sampling` has a temperature above 0.
int32_t draw(std::span<const float> logits, const Sampling& sampling, uint64_t random);

}  // namespace longview
