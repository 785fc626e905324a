#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/argmax.h"
#include "base/error.h"
#include "base/larger_first.h"

namespace longview {

Sampler::Sampler(const Sampling& sampling) : sampling_(sampling), random_(sampling.seed) {
  const auto within = [](float value, float low, float high) { return value >= low && value <= high; };  // false for NaN
  LONGVIEW_CHECK(within(sampling.temperature, 0, 100), kInvalidArgument, "The temperature must be between 0 and 100.");
  LONGVIEW_CHECK(within(sampling.top_p, 0, 1) && within(sampling.min_p, 0, 1) && sampling.top_k >= 0, kInvalidArgument,
                 "top-p and min-p must be between 0 and 1, and top-k not negative.");
}

int32_t Sampler::choose(std::span<const float> logits) {
  if (greedy()) return argmax(logits);
  order_.resize(logits.size());
  std::iota(order_.begin(), order_.end(), 0);
  size_t keep = order_.size();
  if (sampling_.top_k > 0 && static_cast<size_t>(sampling_.top_k) < keep) {
    keep = static_cast<size_t>(sampling_.top_k);
    std::partial_sort(order_.begin(), order_.begin() + static_cast<int64_t>(keep), order_.end(), LargerFirst{logits});
  } else {
    std::sort(order_.begin(), order_.end(), LargerFirst{logits});
  }
  const double best = logits[static_cast<size_t>(order_[0])];
  if (!std::isfinite(best)) return order_[0];
  weights_.resize(keep);
  double total = 0;
  for (size_t i = 0; i < keep; ++i) {
    const double logit = logits[static_cast<size_t>(order_[i])];
    total += weights_[i] = std::isnan(logit) ? 0 : std::exp((logit - best) / sampling_.temperature);
  }
  size_t kept = 0;
  double mass = 0;
  while (kept < keep && (kept == 0 || (weights_[kept] >= sampling_.min_p && mass < sampling_.top_p * total))) mass += weights_[kept++];
  // 53 random bits: the same on every machine, unlike std::uniform_real_distribution.
  double point = static_cast<double>(random_() >> 11) * 0x1p-53 * mass;
  for (size_t i = 0; i < kept; ++i)
    if ((point -= weights_[i]) < 0) return order_[i];
  return order_[kept - 1];
}

}  // namespace longview
