// Rows in e4m3 with a scale each (WeightType::kE4M3).
#pragma once

#include <cuda_fp8.h>

#include "kernels/api/status.h"
#include "kernels/common/bf16.cuh"

namespace longview::kernels {

constexpr float kLargestE4M3 = 448.0f;
// A row whose largest magnitude is below this is zero: the inverse of its scale would leave float32.
constexpr float kSmallestRow = 1e-30f;

// Four codes, rounded to the nearest.
__device__ inline uint32_t pack_e4m3(float a, float b, float c, float d) {
  const uint32_t low = __nv_cvt_float2_to_fp8x2({a, b}, __NV_SATFINITE, __NV_E4M3), high = __nv_cvt_float2_to_fp8x2({c, d}, __NV_SATFINITE, __NV_E4M3);
  return low | high << 16;
}
// Eight codes as they are, without a scale.
__device__ inline void unpack_e4m3x8(uint2 words, float (&out)[8]) {
  const uint32_t word[2] = {words.x, words.y};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const auto pair = static_cast<__nv_fp8x2_storage_t>(word[i / 2] >> (16 * (i % 2)));
    const float2 two = __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(pair, __NV_E4M3)));
    out[2 * i] = two.x;
    out[2 * i + 1] = two.y;
  }
}

// The scale of the row whose codes begin at `row` in a matrix [rows, cols] that begins at `matrix`.
__device__ inline float e4m3_scale(const void* matrix, int64_t rows, int64_t cols, int64_t row) {
  return reinterpret_cast<const float*>(static_cast<const uint8_t*>(matrix) + rows * cols)[row];
}

}  // namespace longview::kernels
