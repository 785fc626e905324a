// A chunk of 64 tokens: how its rows lie, and what of it does not depend on the state before it. Both lie in memory as tensor cores read
// them from shared memory, so that they are copied there as a whole.
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
#include "kernels/recurrent/delta_net.cuh"

namespace longview::kernels {

constexpr int kChunkThreads = 128, kChunk = static_cast<int>(kDeltaChunkTokens);

// T and P in fp16, [64, 64] each, without the quarter behind the diagonal: columns 0 - 31 of all rows, then columns 32 - 63 of rows from 32
// on, rows of 64 bytes in the 64-byte swizzle (ptx/wgmma.cuh). Then three factors of each token in float32: exp(G), whose last is the
// chunk's decay, b exp(G), and exp(G_last - G).
struct ChunkTile {
  static constexpr int kHalf = kChunk / 2, kRight = kChunk * kHalf * 2, kMatrix = kRight + kHalf * kHalf * 2;  // bytes
  static constexpr int kSolved = 0, kWeights = kMatrix, kDecays = 2 * kMatrix, kSeen = kDecays + kChunk * 4, kRests = kSeen + kChunk * 4, kBytes = kRests + kChunk * 4;
  static_assert(kBytes == kDeltaTileBytes);
  // Of a matrix: eight columns of a row.
  __device__ static constexpr uint32_t at(uint32_t row, uint32_t eight) { return (eight < 4 ? row * 64 : kRight + (row - kHalf) * 64) + ((eight % 4) ^ (row / 2 % 4)) * 16; }
  __device__ static char* of(const DeltaPlan& p, int64_t chunk, int64_t head) { return p.tiles + (chunk * p.args.value_heads + head) * kBytes; }
};

// Rows of a head, queries, keys or b v, [64, D] fp16, zeros behind the last token: panels of 64 dimensions, rows of 128 bytes in the 128-byte swizzle; of heads
// of 32 dimensions rows of 64 bytes in that of 64. The heads of a chunk lie together.
template <int D>
struct ChunkRows {
  static constexpr int kBytes = kChunk * D * 2, kEights = D < 64 ? D / 8 : 8, kRowBytes = kEights * 16, kPanel = kChunk * kRowBytes;
  __device__ static constexpr uint32_t at(uint32_t row, uint32_t eight) {
    return eight / kEights * kPanel + row * kRowBytes + ((eight % kEights) ^ (kEights == 8 ? row % 8 : row / 2 % 4)) * 16;
  }
  __device__ static char* of(const DeltaPlan& p, int64_t chunk, int64_t head) { return static_cast<char*>(p.x) + chunk * kChunk * p.channels * 2 + head * kBytes; }
};

// Starts copying to shared memory, by the whole block.
template <int kBytes>
__device__ inline void load_chunk(uint32_t to, const char* from) {
  for (int at = static_cast<int>(threadIdx.x) * 16; at < kBytes; at += kChunkThreads * 16) ptx::cp_async_16(to + at, from + at, true);
}

}  // namespace longview::kernels
