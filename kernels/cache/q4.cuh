// Values of q4 pages (PageFormat::kQ4): where scales and the reference lie in a block, and codes to float32.
#pragma once

#include "kernels/cache/q8.cuh"

namespace longview::kernels {

constexpr int kQ4Zero = 8;  // the code of a zero

__device__ inline float q4_scale(const char* block, int head_dim, int token, int dimension) { return __bfloat162float(code_scale(block + kPageTokens * head_dim / 2, head_dim, token, dimension)); }
// In bytes: where the reference, bf16 [D], lies in a block.
__host__ __device__ constexpr int64_t q4_reference(int64_t head_dim) { return kPageTokens * (head_dim / 2 + head_dim / kQ8Block * 2); }
static_assert(q4_reference(64) % 16 == 0 && q4_reference(64) + 2 * 64 == page_block_bytes(PageFormat::kQ4, 64));

// Eight values from their codes, the first in the lowest bits. The product is exact.
__device__ inline void q4_values(uint32_t codes, float scale, const float (&reference)[8], float (&out)[8]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) out[i] = fmaf(static_cast<float>(static_cast<int>(codes >> 4 * i & 15) - kQ4Zero), scale, reference[i]);
}

// Eight dimensions of the reference from `dimension` on, a multiple of 8.
__device__ inline void unpack_q4_reference(const char* block, int head_dim, int dimension, float (&out)[8]) {
  unpack_bf16x8(*reinterpret_cast<const uint4*>(block + q4_reference(head_dim) + 2 * dimension), out);
}
// Eight values from `dimension` on.
__device__ inline void unpack_q4x8(const char* block, int head_dim, int token, int dimension, const float (&reference)[8], float (&out)[8]) {
  q4_values(*reinterpret_cast<const uint32_t*>(block + (token * head_dim + dimension) / 2), q4_scale(block, head_dim, token, dimension), reference, out);
}

}  // namespace longview::kernels
