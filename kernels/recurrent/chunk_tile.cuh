// A chunk of 64 tokens of one value head: what of it does not depend on the state before it, and its rows in shared memory.
//
// With S the state before the chunk, G the sum of the logarithms of the decays up to and with a token, r and c tokens of the chunk:
//   T = (1 + A)^-1, A[r, c] = b_r exp(G_r - G_c) (k_r k_c) for c < r, else 0
//   u = T (b v - b exp(G) (k S)): what each token adds to S, as S += k u^T
//   o = exp(G) (q S) + P u, P[r, c] = exp(G_r - G_c) (q_r k_c) for c <= r, else 0
//   S behind it = exp(G_last) S + k^T (exp(G_last - G) u)
// (Yang et al., arXiv:2406.06484 and 2412.06464). Only exponents that are not positive are taken.
//
// Factors of products are fp16, three bits more than bf16: an error of u stays until the chunk is over, where token by token the next one
// would correct it. All but v, u and S are at most about 1; these are cut off at 65,504. What fp16 has no room for below is lost beside
// the epsilon of the norm.
#pragma once

#include <cuda_fp16.h>

#include "kernels/api/recurrent.h"
#include "kernels/ptx/cp_async.cuh"
#include "kernels/ptx/f16.cuh"

namespace longview::kernels {

constexpr int kChunkThreads = 128, kChunk = static_cast<int>(kDeltaChunkTokens);

__device__ inline uint32_t pack_within(float low, float high) { return ptx::pack_f16(ptx::within_f16(low), ptx::within_f16(high)); }

// T and P as first factors: fragments of mma.m16n8k16, a lane's four registers beside each other, of 16 rows and columns each, those of the
// lower half alone. Then four factors of each token: b, -b exp(G), exp(G), exp(G_last - G). The third of the last is the chunk's decay.
struct ChunkTile {
  static constexpr int kFragment = 512, kLower = 10 * kFragment;  // bytes
  static constexpr int kSolved = 0, kWeights = kLower, kFactors = 2 * kLower, kBytes = 2 * kLower + kChunk * 16;
  static_assert(kBytes == kDeltaTileBytes);
  __host__ __device__ static constexpr int lower(int row, int column) { return (row * (row + 1) / 2 + column) * kFragment; }
};

// [64, D] fp16 in shared memory, 16 bytes behind each row, so that eight rows of one column lie in eight bank groups.
template <int D>
struct ChunkRows {
  static constexpr int kStride = D * 2 + 16, kBytes = kChunk * kStride;
  __device__ static uint32_t at(int row, int chunk) { return row * kStride + chunk * 16; }
  // Starts copying, by the whole block; zeros behind the first `valid`.
  __device__ static void load(uint32_t to, const __half* from, int64_t stride, int valid) {
#pragma unroll
    for (int i = 0; i < kChunk * (D / 8) / kChunkThreads; ++i) {
      const int item = static_cast<int>(threadIdx.x) + i * kChunkThreads, row = item / (D / 8), chunk = item % (D / 8);
      ptx::cp_async_16(to + at(row, chunk), from + (row < valid ? row : 0) * stride + chunk * 8, row < valid);
    }
  }
};

}  // namespace longview::kernels
