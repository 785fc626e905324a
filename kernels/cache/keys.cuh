// Keys of a page as they are kept, for kernels that read some dimensions of some of them.
#pragma once

#include "kernels/cache/e4m3_pages.cuh"
#include "kernels/common/bf16.cuh"

namespace longview::kernels {

// Eight dimensions of a token of a K block, also of a V block of bf16 pages. Those of e4m3 pages are to be multiplied by key_scale.
template <int D, PageFormat kFormat>
__device__ inline void unpack_keyx8(const char* block, int token, int dimension, float (&x)[8]) {
  static_assert(kFormat == PageFormat::kBFloat16 || kFormat == PageFormat::kE4M3);
  if constexpr (kFormat == PageFormat::kBFloat16) {
    unpack_bf16x8(*reinterpret_cast<const uint4*>(block + 2 * page_offset(token, dimension)), x);
  } else {
    const uint2 words = *reinterpret_cast<const uint2*>(block + e4m3_key_offset(D, token, dimension));
    unpack_e4m3x4(words.x, 1.0f, reinterpret_cast<float(&)[4]>(x[0]));
    unpack_e4m3x4(words.y, 1.0f, reinterpret_cast<float(&)[4]>(x[4]));
  }
}
template <int D, PageFormat kFormat>
__device__ inline float key_scale(const char* block) {
  return kFormat == PageFormat::kE4M3 ? e4m3_scale_of<D>(block) : 1.0f;
}

}  // namespace longview::kernels
