// The orthonormal Walsh-Hadamard transform of a head that a warp holds as rotate_head.cuh has it: a lane has D / 32 neighbouring dimensions.
#pragma once

namespace longview::kernels {

// x becomes H x, H[i][j] = (-1)^(bits that i and j share) / sqrt(D), D = 32 * kDims. Shrunk first: what is below sqrt(D) times less than float32's
// largest number stays finite on the way.
template <int kDims>
__device__ inline void hadamard(float (&x)[kDims]) {
  static_assert(kDims == 2 || kDims == 4 || kDims == 8);
  constexpr float kShrink = kDims == 2 ? 0.125f : kDims == 4 ? 0.08838834764831845f : 0.0625f;
#pragma unroll
  for (int i = 0; i < kDims; ++i) x[i] *= kShrink;
#pragma unroll
  for (int step = 1; step < kDims; step *= 2)
#pragma unroll
    for (int i = 0; i < kDims; ++i) {
      if (i & step) continue;
      const float low = x[i], high = x[i + step];
      x[i] = low + high;
      x[i + step] = low - high;
    }
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const float sign = static_cast<int>(threadIdx.x) & step ? -1.0f : 1.0f;
#pragma unroll
    for (int i = 0; i < kDims; ++i) x[i] = fmaf(x[i], sign, __shfl_xor_sync(0xffffffffu, x[i], step));
  }
}

}  // namespace longview::kernels
