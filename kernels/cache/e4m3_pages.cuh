// Values of e4m3 pages (PageFormat::kE4M3): their scales, and codes to fp16 pairs and float32.
#pragma once

#include <cuda_fp16.h>

#include "kernels/api/cache.h"
#include "kernels/common/e4m3.cuh"

namespace longview::kernels {

// Beyond these the scale or its inverse, times a code, would leave float32.
constexpr int kLeastExponent = -100, kMostExponent = 100;

// A power of two, so that `largest` is 3.5 to 7 of it; 1 where all is zero.
__device__ inline float e4m3_page_scale(float largest) {
  if (largest == 0) return 1.0f;
  const int exponent = static_cast<int>(__float_as_uint(largest / 3.5f) >> 23) - 127;
  return exp2f(static_cast<float>(min(max(exponent, kLeastExponent), kMostExponent)));
}

// Of a K or V block of a head.
template <int D>
__device__ inline float& e4m3_scale_of(char* block) { return *reinterpret_cast<float*>(block + kPageTokens * D); }
template <int D>
__device__ inline float e4m3_scale_of(const char* block) { return *reinterpret_cast<const float*>(block + kPageTokens * D); }

// The codes of a word, exactly, in two pairs: x of the first two, y of the others. The intrinsic for two codes makes and splits 16-bit parts, which
// costs as much as the conversion.
__device__ inline uint2 half_pairs(uint32_t word) {
  uint2 pairs;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %2;\ncvt.rn.f16x2.e4m3x2 %0, low;\ncvt.rn.f16x2.e4m3x2 %1, high;\n}" : "=r"(pairs.x), "=r"(pairs.y) : "r"(word));
#else
  const auto pair = [](uint32_t codes) {
    const __half2_raw two = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(codes), __NV_E4M3);
    return two.x | static_cast<uint32_t>(two.y) << 16;
  };
  pairs = {pair(word & 0xffff), pair(word >> 16)};
#endif
  return pairs;
}

// The four values of a word.
__device__ inline void unpack_e4m3x4(uint32_t word, float scale, float (&out)[4]) {
  const uint2 both = half_pairs(word);
  const uint32_t pairs[2] = {both.x, both.y};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float2 two = __half22float2(reinterpret_cast<const __half2&>(pairs[i]));
    out[2 * i] = two.x * scale;
    out[2 * i + 1] = two.y * scale;
  }
}

}  // namespace longview::kernels
