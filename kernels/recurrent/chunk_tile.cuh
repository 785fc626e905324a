// What of a chunk of 64 tokens does not depend on the state before it, for one value head, as the tensor cores read it: factors lie in
// fragments of mma.m16n8k16, a lane's four registers beside each other, so that a warp reads 512 bytes in a row and nothing is turned.
//
// With S the state before the chunk, G the sum of the logarithms of the decays up to and with a token, r and c tokens of the chunk:
//   T = (1 + A)^-1, A[r, c] = b_r exp(G_r - G_c) (k_r k_c) for c < r, else 0
//   u = T b v - (T b exp(G) k) S: what each token adds to S, as S += k u^T
//   o = (exp(G) q) S + P u, P[r, c] = exp(G_r - G_c) (q_r k_c) for c <= r, else 0
//   S behind it = exp(G_last) S + (exp(G_last - G) k)^T u
// (Yang et al., arXiv:2406.06484 and 2412.06464). Only exponents that are not positive are taken.
//
// Factors are fp16, three bits more than bf16: an error of u stays until the chunk is over, where token by token the next one would
// correct it. All but v, u and S are at most about 1; these are cut off at 65,504. What fp16 has no room for below is lost beside the
// epsilon of the norm.
#pragma once

#include "kernels/api/recurrent.h"
#include "kernels/ptx/f16.cuh"

namespace longview::kernels {

__device__ inline uint32_t pack_within(float low, float high) { return ptx::pack_f16(ptx::within_f16(low), ptx::within_f16(high)); }

template <int D>
struct ChunkTile {
  static constexpr int kTokens = static_cast<int>(kDeltaChunkTokens), kFragment = 512;
  static constexpr int kMatrix = kTokens * D * 2, kLower = 10 * kFragment;  // bytes
  // The four that are first factors, in the order in which they are needed: -T b exp(G) k and exp(G) q [64, D], P, of whose fragments only
  // the lower half is there, (exp(G_last - G) k)^T [D, 64]. Behind them T b v, a sum's beginning.
  static constexpr int kFactors = 4;
  __host__ __device__ static constexpr int bytes(int factor) { return factor == 2 ? kLower : kMatrix; }
  __host__ __device__ static constexpr int offset(int factor) { return factor <= 2 ? factor * kMatrix : 2 * kMatrix + kLower + (factor - 3) * kMatrix; }
  static constexpr int kBytes = 4 * kMatrix + kLower;
  static_assert(kBytes == delta_tile_bytes(D));

  // Of 16 rows and 16 columns, in bytes behind the factor's begin.
  __host__ __device__ static constexpr int of_tokens(int row, int column) { return (row * (D / 16) + column) * kFragment; }
  __host__ __device__ static constexpr int lower(int row, int column) { return (row * (row + 1) / 2 + column) * kFragment; }
  __host__ __device__ static constexpr int of_keys(int row, int column) { return (row * (kTokens / 16) + column) * kFragment; }
  // T b v: eight columns of 32 rows; a lane has the first sixteen's two pairs, then the others'.
  __host__ __device__ static constexpr int sums(int column, int rows) { return (column * 2 + rows) * kFragment; }
};

}  // namespace longview::kernels
