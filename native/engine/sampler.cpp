#include "engine/sampler.h"

#include "base/argmax.h"
#include "base/error.h"

namespace longview {

Sampler::Sampler(const Sampling& sampling) : sampling_(sampling), random_(sampling.seed) {
  const auto within = [](float value, float low, float high) { return value >= low && value <= high; };  // false for NaN
  LONGVIEW_CHECK(within(sampling.temperature, 0, 100), kInvalidArgument, "The temperature must be between 0 and 100.");
  LONGVIEW_CHECK(within(sampling.top_p, 0, 1) && within(sampling.min_p, 0, 1) && sampling.top_k >= 0, kInvalidArgument,
                 "top-p and min-p must be between 0 and 1, and top-k not negative.");
}

int32_t Sampler::choose(std::span<const float> logits) { return greedy() ? argmax(logits) : draw(logits, sampling_, random()); }

}  // namespace longview
