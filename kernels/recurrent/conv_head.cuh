// What DeltaNet takes its queries, keys, values and gates from: a causal convolution over each channel's last four inputs, SiLU, and the
// norm of heads of queries and keys. A warp has a head, a lane D / 32 neighbouring channels of it.
#pragma once

#include "kernels/recurrent/delta_net.cuh"

namespace longview::kernels {

constexpr int kPastInputs = static_cast<int>(kConvWidth) - 1;

// A lane's channels of a token, as they lie in memory and in float.
template <int kChannels>
struct alignas(kChannels * 2) Lane {
  __nv_bfloat16 x[kChannels];
  __device__ void read(const __nv_bfloat16* from) {
    if constexpr (kChannels == 4) *reinterpret_cast<uint2*>(x) = *reinterpret_cast<const uint2*>(from);
    else if constexpr (kChannels == 2) *reinterpret_cast<uint32_t*>(x) = *reinterpret_cast<const uint32_t*>(from);
    else x[0] = from[0];
  }
  __device__ void write(__nv_bfloat16* to) const {
    if constexpr (kChannels == 4) *reinterpret_cast<uint2*>(to) = *reinterpret_cast<const uint2*>(x);
    else if constexpr (kChannels == 2) *reinterpret_cast<uint32_t*>(to) = *reinterpret_cast<const uint32_t*>(x);
    else to[0] = x[0];
  }
};

template <int kChannels>
__device__ inline void write_lane(float* to, const float (&x)[kChannels]) {
  if constexpr (kChannels == 4) *reinterpret_cast<float4*>(to) = {x[0], x[1], x[2], x[3]};
  else if constexpr (kChannels == 2) *reinterpret_cast<float2*>(to) = {x[0], x[1]};
  else to[0] = x[0];
}

// x of a token from its inputs and the three before it, `in` [4], the oldest first.
template <int kChannels>
__device__ inline void convolve(const Lane<kChannels>* in, const float4 (&weight)[kChannels], float (&x)[kChannels]) {
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    const float sum = weight[c].x * __bfloat162float(in[0].x[c]) + weight[c].y * __bfloat162float(in[1].x[c]) + weight[c].z * __bfloat162float(in[2].x[c]) + weight[c].w * __bfloat162float(in[3].x[c]);
    x[c] = silu(sum);
  }
}

// A head of queries or keys by its length, times `factor`. All lanes of a warp take part.
template <int kChannels>
__device__ inline void norm_head(float (&x)[kChannels], float factor) {
  float squares = 0;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) squares = fmaf(x[c], x[c], squares);
  const float scale = rsqrtf(warp_sum(squares) + 1e-6f) * factor;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) x[c] *= scale;
}

// {log2 of the decay, b} of a token and value head, whose weights are dt_bias and decay (api/recurrent.h).
__device__ inline float2 gates_of(float alpha, float beta, float dt_bias, float decay) {
  constexpr float kLog2E = 1.4426950408889634f;
  const float x = alpha + dt_bias;
  const float rate = decay * (x > 20.0f ? x : log1pf(expf(x))) * kLog2E;
  // Less than float32 tells from nothing is not summed up over a chunk: the sums would lose what later tokens differ by.
  return {rate < -150.0f ? -150.0f : rate, 1.0f / (1.0f + expf(-beta))};
}
__device__ inline float2 gates_of(const DeltaNetArgs& a, int64_t token, int64_t head, float dt_bias, float decay) {
  const int64_t at = token * a.value_heads + head;
  return gates_of(__bfloat162float(static_cast<const __nv_bfloat16*>(a.alpha)[at]), __bfloat162float(static_cast<const __nv_bfloat16*>(a.beta)[at]), dt_bias, decay);
}

}  // namespace longview::kernels
