// A token that attention appends on its way (api/attention.h), over bf16 pages: no kernel stands between the product that made it and attention.
#pragma once

#include "kernels/api/attention.h"
#include "kernels/cache/rotate_head.cuh"
#include "kernels/common/bf16.cuh"

namespace longview::kernels {

// K and V of a head to their page. `keys`: the head's K block of the page; `place`: of the token in it. Called by the warp whose keys the token is
// among, before it reads them: no other has to wait.
template <int D>
__device__ inline void append_token(const AppendedToken& token, int kv_head, __nv_bfloat16* keys, int place) {
  constexpr int kDims = D / 32;
  const RopeAppendArgs whole{nullptr, nullptr, nullptr, nullptr, token.cosine, token.sine, {}, 1, 0, D, D / 2, 0, 0};
  float x[2][kDims];
  read_head<D>(whole, static_cast<const __nv_bfloat16*>(token.k) + kv_head * D, 0, true, x[0]);
  read_head<D>(whole, static_cast<const __nv_bfloat16*>(token.v) + kv_head * D, 0, false, x[1]);
  if (is_faulty(x[1]))
#pragma unroll
    for (int is_value = 0; is_value < 2; ++is_value) hide_fault(is_value, x[is_value]);
#pragma unroll
  for (int is_value = 0; is_value < 2; ++is_value) {
    Run<__nv_bfloat16, kDims> values;
#pragma unroll
    for (int i = 0; i < kDims; ++i) values.x[i] = __float2bfloat16(x[is_value][i]);
    *reinterpret_cast<Run<__nv_bfloat16, kDims>*>(keys + is_value * kPageTokens * D + page_offset(place, threadIdx.x % 32 * kDims)) = values;
  }
  __syncwarp();
}

// Two neighbouring dimensions and those D / 2 behind them, in bf16.
__device__ inline void rotate_pairs(uint32_t& low, uint32_t& high, float2 cosine, float2 sine) {
  const float2 x = unpack_bf16(low), y = unpack_bf16(high);
  low = pack_bf16(rotated_low(x.x, y.x, cosine.x, sine.x), rotated_low(x.y, y.y, cosine.y, sine.y));
  high = pack_bf16(rotated_high(x.x, y.x, cosine.x, sine.x), rotated_high(x.y, y.y, cosine.y, sine.y));
}

// Its queries, as a warp of RowsSm80 has them: dimensions i * 16 + j / 2 * 8 + lane % 4 * 2 and + 1 at [i][j].
template <int D>
__device__ inline void rotate_queries(const AppendedToken& token, uint32_t (&query)[D / 16][4]) {
#pragma unroll
  for (int i = 0; i < D / 32; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int dimension = i * 16 + j / 2 * 8 + static_cast<int>(threadIdx.x) % 4 * 2;
      rotate_pairs(query[i][j], query[i + D / 32][j], *reinterpret_cast<const float2*>(token.cosine + dimension), *reinterpret_cast<const float2*>(token.sine + dimension));
    }
}

}  // namespace longview::kernels
