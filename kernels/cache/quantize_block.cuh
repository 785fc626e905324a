// K or V of a page in e4m3 (PageFormat::kE4M3) from values that come token by token.
#pragma once

#include "kernels/cache/e4m3_pages.cuh"

namespace longview::kernels {

// Threads of a block; a warp has 16 neighbouring tokens, which of V are one chunk of a dimension.
constexpr int kQuantizeThreads = 256, kQuantizeWarps = kQuantizeThreads / 32, kTokenRun = static_cast<int>(kPageTokens) / kQuantizeWarps;
static_assert(kTokenRun == 16);

// The largest of all threads' values.
__device__ inline float largest_of_block(float largest) {
  __shared__ float gathered[kQuantizeWarps];
  largest = warp_max(largest);
  if (threadIdx.x % 32 == 0) gathered[threadIdx.x / 32] = largest;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kQuantizeWarps; ++i) largest = fmaxf(largest, gathered[i]);
  return largest;
}

// What a value counts for its page's scale.
__device__ inline float finite_magnitude(float x) { return isfinite(x) ? fabsf(x) : 0.0f; }

// Codes of a lane's dimensions of a token, the first in the lowest byte.
template <int kDims>
__device__ inline uint64_t lane_codes(const float (&x)[kDims]) {
  static_assert(kDims == 2 || kDims == 4 || kDims == 8);
  if constexpr (kDims == 8) return static_cast<uint64_t>(pack_e4m3(x[4], x[5], x[6], x[7])) << 32 | pack_e4m3(x[0], x[1], x[2], x[3]);
  else if constexpr (kDims == 4) return pack_e4m3(x[0], x[1], x[2], x[3]);
  else return pack_e4m3(x[0], x[1], 0, 0);
}

// The same to their place in a K block.
template <int kDims>
__device__ inline void write_codes(char* at, uint64_t codes) {
  if constexpr (kDims == 8) *reinterpret_cast<uint64_t*>(at) = codes;
  else if constexpr (kDims == 4) *reinterpret_cast<uint32_t*>(at) = static_cast<uint32_t>(codes);
  else *reinterpret_cast<uint16_t*>(at) = static_cast<uint16_t>(codes);
}

// Writes tokens from .. to - 1 of the page and, where from is 0, the scale that they choose. read(token, x): a token's dimensions from
// threadIdx.x % 32 * D / 32 on. What begins a page is read twice, since few registers, and many threads, are worth more.
template <int D, typename Read, int kDims = D / 32>
__device__ inline void quantize_block(char* block, bool is_value, int from, int to, Read read) {
  const int lane = static_cast<int>(threadIdx.x) % 32, first = static_cast<int>(threadIdx.x) / 32 * kTokenRun;  // of the warp's tokens
  // Tokens that stand in word i of a chunk; zeros for those that are not written.
  const auto token_of = [&](int i, int j) { return first + 2 * i + j / 2 * 8 + j % 2; };
  const auto written = [&](int token) { return token >= from && token < to; };
  const auto read_word = [&](int i, float(&x)[4][kDims]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int k = 0; k < kDims; ++k) x[j][k] = 0;
      if (written(token_of(i, j))) read(token_of(i, j), x[j]);
    }
  };
  float x[4][kDims], scale;
  if (from == 0) {
    float largest = 0;
#pragma unroll 1
    for (int i = 0; i < 4; ++i) {
      read_word(i, x);
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int k = 0; k < kDims; ++k) largest = fmaxf(largest, finite_magnitude(x[j][k]));
    }
    scale = e4m3_page_scale(largest_of_block(largest));
    if (threadIdx.x == 0) e4m3_scale_of<D>(block) = scale;
  } else {
    scale = e4m3_scale_of<D>(static_cast<const char*>(block));
  }
  if (first >= to || first + kTokenRun <= from) return;

  const float inverse = 1 / scale;
  uint32_t words[kDims][4];  // of V: a chunk of each dimension
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    read_word(i, x);
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int k = 0; k < kDims; ++k) x[j][k] *= inverse;
    if (is_value) {
#pragma unroll
      for (int k = 0; k < kDims; ++k) words[k][i] = pack_e4m3(x[0][k], x[1][k], x[2][k], x[3][k]);
      continue;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (!written(token_of(i, j))) continue;
      char* at = block + e4m3_key_offset(D, token_of(i, j), lane * kDims);
      write_codes<kDims>(at, lane_codes(x[j]));
    }
  }
  if (!is_value) return;
#pragma unroll
  for (int k = 0; k < kDims; ++k) {
    char* chunk = block + e4m3_value_offset(first, lane * kDims + k);
    if (first >= from && first + kTokenRun <= to) {
      *reinterpret_cast<uint4*>(chunk) = {words[k][0], words[k][1], words[k][2], words[k][3]};
      continue;
    }
#pragma unroll
    for (int i = 0; i < kTokenRun; ++i)
      if (written(token_of(i / 4, i % 4))) chunk[i] = static_cast<char>(words[k][i / 4] >> i % 4 * 8);
  }
}

}  // namespace longview::kernels
