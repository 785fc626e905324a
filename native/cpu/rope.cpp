#include "cpu/rope.h"

#include <cmath>

namespace longview::cpu {

void CpuRope::prepare(int64_t first, int64_t tokens) {
  if (first == first_ && tokens == tokens_) return;
  const size_t half = config_.inverse_frequencies.size();
  cos_.resize(static_cast<size_t>(tokens) * half);
  sin_.resize(static_cast<size_t>(tokens) * half);
  for (int64_t t = 0; t < tokens; ++t) {
    for (size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(first + t) * config_.inverse_frequencies[i];
      cos_[static_cast<size_t>(t) * half + i] = static_cast<float>(std::cos(angle) * config_.attention_scale);
      sin_[static_cast<size_t>(t) * half + i] = static_cast<float>(std::sin(angle) * config_.attention_scale);
    }
  }
  first_ = first;
  tokens_ = tokens;
}

void CpuRope::rotate(float* head, int64_t t) const {
  const int64_t half = config_.dims / 2;
  const float* cosine = cos_.data() + t * half;
  const float* sine = sin_.data() + t * half;
  const bool adjacent = config_.pairing == RopePairing::kAdjacent;
  for (int64_t i = 0; i < half; ++i) {
    float& a = head[adjacent ? 2 * i : i];
    float& b = head[adjacent ? 2 * i + 1 : i + half];
    const float x = a, y = b;
    a = x * cosine[i] - y * sine[i];
    b = x * sine[i] + y * cosine[i];
  }
}

}  // namespace longview::cpu
