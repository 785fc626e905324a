// Values of q8 pages (PageFormat::kQ8): codes to bf16 and float32, and where they lie in a block.
#pragma once

#include "kernels/api/cache.h"
#include "kernels/common/bf16.cuh"

namespace longview::kernels {

// bf16 of integers from 128 to 255 have 0x43 in the high byte: behind it, a code makes a pair of numbers whose difference it is.
constexpr uint32_t kQ8High = 0x43434343;

// Two codes, each with 0x43 above it, times their scales: rounded once, to bf16.
__device__ inline __nv_bfloat162 q8_values(uint32_t pair, __nv_bfloat162 scales) {
  const uint32_t shifted = pair & 0xff7fff7fu, shift = pair & 0x43804380u;  // 128 + the code's lower bits; 256 where it is negative, else 128
  return __hmul2(__hsub2(as_bf16(shifted), as_bf16(shift)), scales);
}
__device__ inline uint32_t q8_bits(uint32_t pair, __nv_bfloat162 scales) { return as_bits(q8_values(pair, scales)); }
// The first and the last two codes of a word.
__device__ inline uint32_t q8_low(uint32_t word) { return __byte_perm(word, kQ8High, 0x4140); }
__device__ inline uint32_t q8_high(uint32_t word) { return __byte_perm(word, kQ8High, 0x4342); }

// Of the block of 32 dimensions that holds this one. `scales`: those of a K or V block [128, head_dim / 32].
__device__ inline __nv_bfloat16 code_scale(const char* scales, int head_dim, int token, int dimension) {
  const int blocks = head_dim / static_cast<int>(kQ8Block);
  return reinterpret_cast<const __nv_bfloat16*>(scales)[token * blocks + dimension / static_cast<int>(kQ8Block)];
}
__device__ inline __nv_bfloat16 q8_scale(const char* block, int head_dim, int token, int dimension) { return code_scale(block + kPageTokens * head_dim, head_dim, token, dimension); }

// Eight values from `dimension` on, a multiple of 8, in float32.
__device__ inline void unpack_q8x8(const char* block, int head_dim, int token, int dimension, float (&out)[8]) {
  const float scale = __bfloat162float(q8_scale(block, head_dim, token, dimension));
  const uint2 words = *reinterpret_cast<const uint2*>(block + token * head_dim + dimension);
#pragma unroll
  for (int i = 0; i < 8; ++i) out[i] = static_cast<float>(static_cast<int8_t>((i < 4 ? words.x : words.y) >> (i % 4 * 8))) * scale;
}

}  // namespace longview::kernels
