// Drawing a token by its probability. All arithmetic is on integers, but for one difference and one product of doubles, so that the
// same logits and the same random number give the same token on every machine and every device (kernels/elementwise/draw.cu).
#pragma once

#include <cstdint>
#include <span>

namespace longview {

struct Sampling {
  float temperature = 0;  // 0: greedy, the rest is ignored
  int32_t top_k = 0;      // tokens with fewer than so many above them; 0: no limit
  float top_p = 1;        // tokens with less than this probability above them together, and the best
  float min_p = 0;        // at least this share of the best token's probability
  uint64_t seed = 0;
};

// The largest logit's token, and one that was drawn.
struct Drawn {
  int32_t largest, token;
};

// A token of `logits` by `random`, under temperature, top_k, top_p and min_p; equals share each limit. NaN is never drawn, unless all are
// NaN: then, and where the largest is infinite, as argmax(). `sampling` has a temperature above 0.
int32_t draw(std::span<const float> logits, const Sampling& sampling, uint64_t random);

}  // namespace longview
