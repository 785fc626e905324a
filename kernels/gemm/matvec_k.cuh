// A superblock of Q4_K or Q5_K for tensor cores: codes are exact in bf16, and what a sub-block's products share is applied to their sums.
#pragma once

#include "kernels/common/dequantize.cuh"
#include "kernels/ptx/mma.cuh"

namespace longview::kernels {

// Of one row: what a thread has of a superblock's 256 elements, 8 of each sub-block.
template <WeightType kType>
struct SuperblockPart {
  uint4 header;    // d and dmin in fp16, then the scales and minimums in 6 bits
  uint2 codes[4];  // of two sub-blocks each, in the low and the high 4 bits
  uint2 fifth;     // of Q5_K: a bit for each sub-block

  __device__ void load(const uint8_t* block, int part) {
    header = __ldcs(reinterpret_cast<const uint4*>(block));
    const uint8_t* low = block + (kType == WeightType::kQ5_K ? 48 : 16) + 8 * part;
#pragma unroll
    for (int i = 0; i < 4; ++i) codes[i] = __ldcs(reinterpret_cast<const uint2*>(low + 32 * i));
    if constexpr (kType == WeightType::kQ5_K) fifth = __ldcs(reinterpret_cast<const uint2*>(block + 16 + 8 * part));
  }

  // Four pairs of sub-block s, each 128 more than its code.
  __device__ void pairs(int s, uint32_t (&out)[4]) const {
    const uint32_t words[2] = {codes[s / 2].x, codes[s / 2].y}, bits[2] = {fifth.x, fifth.y};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      uint32_t word = (s % 2 ? words[i] >> 4 : words[i]) & 0x0f0f0f0fu;
      if constexpr (kType == WeightType::kQ5_K) word |= ((bits[i] >> s) & 0x01010101u) << 4;
      out[2 * i] = __byte_perm(word, 0x43434343u, 0x4140);
      out[2 * i + 1] = __byte_perm(word, 0x43434343u, 0x4342);
    }
  }

  // Of all sub-blocks, what their sums are multiplied with, and what the sums of x are.
  __device__ void factors(float (&scale)[8], float (&offset)[8]) const {
    const float d = __low2float(reinterpret_cast<const __half2&>(header.x)), least = __high2float(reinterpret_cast<const __half2&>(header.x));
    // Six bits of sub-blocks 0 .. 3 and 4 .. 7, a byte each.
    const uint32_t scales[2] = {header.y & 0x3f3f3f3fu, (header.w & 0x0f0f0f0fu) | ((header.y >> 2) & 0x30303030u)};
    const uint32_t minimums[2] = {header.z & 0x3f3f3f3fu, ((header.w >> 4) & 0x0f0f0f0fu) | ((header.z >> 2) & 0x30303030u)};
#pragma unroll
    for (int s = 0; s < 8; ++s) {
      scale[s] = d * static_cast<float>((scales[s / 4] >> (8 * (s % 4))) & 255);
      offset[s] = fmaf(-128.0f, scale[s], -least * static_cast<float>((minimums[s / 4] >> (8 * (s % 4))) & 255));
    }
  }
};

// sum [16, 8] += the products of a tile with the 8 rows of x over a superblock; a thread has the rows lane / 4 and that + 8 of the tile. x: of
// this thread's row, eight elements of each sub-block, 32 apart.
template <WeightType kType>
__device__ inline void add_superblock(float (&sum)[4], const SuperblockPart<kType>& upper, const SuperblockPart<kType>& lower, const uint4 (&x)[8]) {
  constexpr uint32_t kOnes = 0x3f803f80u;
  float scale[2][8], offset[2][8];
  upper.factors(scale[0], offset[0]);
  lower.factors(scale[1], offset[1]);
#pragma unroll
  for (int s = 0; s < 8; ++s) {
    uint32_t above[4], below[4];
    upper.pairs(s, above);
    lower.pairs(s, below);
    float products[4] = {}, sums[4] = {};
    const uint32_t ones[4] = {kOnes, kOnes, kOnes, kOnes};
    ptx::mma_bf16(products, {above[0], below[0], above[1], below[1]}, x[s].x, x[s].y);
    ptx::mma_bf16(sums, ones, x[s].x, x[s].y);
    ptx::mma_bf16(products, {above[2], below[2], above[3], below[3]}, x[s].z, x[s].w);
    ptx::mma_bf16(sums, ones, x[s].z, x[s].w);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] += fmaf(scale[i / 2][s], products[i], offset[i / 2][s] * sums[i]);
  }
}

}  // namespace longview::kernels
