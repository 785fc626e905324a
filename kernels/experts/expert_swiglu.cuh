// What an expert makes of its two halves.
#pragma once

#include "kernels/common/gated.cuh"

namespace longview::kernels {

// gpt-oss's: both are bounded, and what is no number stays so.
__device__ inline float clamped_swiglu(float gate, float up) {
  constexpr float kMost = 7.0f, kSlope = 1.702f;
  const float g = gate > kMost ? kMost : gate, u = up > kMost ? kMost : up < -kMost ? -kMost : up;
  return gated(g, kSlope * g) * (1.0f + u);
}

}  // namespace longview::kernels
