// Groups of 32 codes for tensor cores: codes are exact in bf16, and what 16 or 32 of them share is applied to the sums of their products.
#pragma once

#include "kernels/common/weight_blocks.cuh"
#include "kernels/ptx/mma.cuh"

namespace longview::kernels {

// Those of Q4_K and Q5_K go by superblocks (matvec_k).
__host__ __device__ constexpr bool met_in_groups(WeightType type) {
  return type != WeightType::kBFloat16 && type != WeightType::kE4M3 && type != WeightType::kQ4_K && type != WeightType::kQ5_K;
}

// Types whose codes fill a byte, and stand for themselves less 128.
__host__ __device__ constexpr bool fills_byte(WeightType type) { return type == WeightType::kQ8_0 || (has_table(type) && table_zero(type) == 128); }

// Four codes below 128 as bf16: 128 more each.
__device__ inline void widen_codes(uint32_t codes, uint32_t above, uint32_t (&out)[2]) {
  out[0] = __byte_perm(codes, above, 0x4140);
  out[1] = __byte_perm(codes, above, 0x4342);
}

// sum [16, 8] += the products of a tile of weight rows with 8 rows of x over a group of 32 elements; a thread has the rows lane / 4 (upper) and that + 8 (lower) of
// the tile, and of each half of the group elements 4 * part .. + 3, part = lane % 4. x: these of row lane / 4. kRowOdd is odd_of's.
template <WeightType kType, int kRowOdd>
__device__ inline void add_group(float (&sum)[4], const uint8_t* upper, const uint8_t* lower, int64_t group, int part, const uint2 (&x)[2]) {
  constexpr uint32_t kOnes = 0x3f803f80u, k128 = 0x43434343u;
  const Scales scales[2] = {load_scales<kType, kRowOdd>(upper, group), load_scales<kType, kRowOdd>(lower, group)};
  uint32_t codes[2][2];
  load_codes<kType, 1, kRowOdd>(upper, group, part, codes[0]);
  load_codes<kType, 1, kRowOdd>(lower, group, part, codes[1]);
  float products[4] = {}, sums[4] = {};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    uint32_t above[2], below[2];
    if constexpr (fills_byte(kType)) {
      // Less 128, as 128 and the low seven bits, less 128 or, where the eighth is clear, 256.
      widen_codes(codes[0][half] & 0x7f7f7f7fu, k128, above), widen_codes(codes[1][half] & 0x7f7f7f7fu, k128, below);
      ptx::mma_bf16(products, {above[0], below[0], above[1], below[1]}, x[half].x, x[half].y);
      widen_codes(~codes[0][half] & 0x80808080u, k128 | 0x80808080u, above), widen_codes(~codes[1][half] & 0x80808080u, k128 | 0x80808080u, below);
      ptx::mma_bf16(products, {above[0], below[0], above[1], below[1]}, x[half].x, x[half].y);
    } else {
      widen_codes(codes[0][half], k128, above), widen_codes(codes[1][half], k128, below);
      ptx::mma_bf16(products, {above[0], below[0], above[1], below[1]}, x[half].x, x[half].y);
      ptx::mma_bf16(sums, {kOnes, kOnes, kOnes, kOnes}, x[half].x, x[half].y);
    }
    if (half == 0 && !in_quarters(kType)) continue;  // both halves have the same scale
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float scale = scales[i / 2].scale[half];
      sum[i] = fmaf(scale, products[i], sum[i]);
      if constexpr (!fills_byte(kType)) sum[i] = fmaf(fmaf(-128.0f, scale, scales[i / 2].offset[half]), sums[i], sum[i]);
      products[i] = sums[i] = 0;
    }
  }
}

}  // namespace longview::kernels
