// Heads of a token as warps take them that write pages of 8 or 4 bits, or a single token: a lane has D / 32 neighbouring dimensions, rotated
// in float32.
#pragma once

#include "kernels/api/cache.h"
#include "kernels/cache/fault.cuh"
#include "kernels/cache/hadamard.cuh"
#include "kernels/cache/rotate.cuh"
#include "kernels/common/bf16.cuh"

namespace longview::kernels {

// Dimensions of a lane, neighbours, in one access, or in as many as 16 bytes each take.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Run {
  T x[kCount];
};

// Whether all heads are as wide as the pages and rotated by halves of which lanes have all their dimensions or none: then they read and write
// these at once.
template <int D>
__device__ inline bool is_even(const RopeAppendArgs& p) {
  return p.head_dim == D && p.half % (D / 32) == 0 && !p.adjacent;
}

// A lane's dimensions of a head from lane * kDims on, rotated where the head has positions.
template <int D, int kDims = D / 32>
__device__ inline void read_head(const RopeAppendArgs& p, const __nv_bfloat16* head, int64_t token, bool positioned, float (&out)[kDims]) {
  const int first = static_cast<int>(threadIdx.x) % 32 * kDims, own = static_cast<int>(p.head_dim), half = static_cast<int>(p.half);
  const float *cosine = p.cosine + token * half, *sine = p.sine + token * half;
  if (is_even<D>(p)) {
    using Values = Run<__nv_bfloat16, kDims>;
    using Angles = Run<float, kDims>;
    const Values x = *reinterpret_cast<const Values*>(head + first);
#pragma unroll
    for (int i = 0; i < kDims; ++i) out[i] = __bfloat162float(x.x[i]);
    if (!positioned || first >= 2 * half) return;
    const bool is_low = first < half;
    const int pair = is_low ? first : first - half;
    const Values y = *reinterpret_cast<const Values*>(head + (is_low ? first + half : pair));
    const Angles c = *reinterpret_cast<const Angles*>(cosine + pair), s = *reinterpret_cast<const Angles*>(sine + pair);
#pragma unroll
    for (int i = 0; i < kDims; ++i) {
      const float partner = __bfloat162float(y.x[i]);
      out[i] = is_low ? rotated_low(out[i], partner, c.x[i], s.x[i]) : rotated_high(partner, out[i], c.x[i], s.x[i]);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kDims; ++i) {
    const int dimension = first + i;
    out[i] = dimension < own ? __bfloat162float(head[dimension]) : 0.0f;
    const int pair = p.adjacent ? dimension / 2 : dimension < half ? dimension : dimension - half;
    if (!positioned || pair >= half || dimension >= own) continue;
    const bool is_first = p.adjacent ? dimension % 2 == 0 : dimension < half;
    const float partner = __bfloat162float(head[p.adjacent ? dimension ^ 1 : is_first ? dimension + half : dimension - half]);
    out[i] = is_first ? rotated_low(out[i], partner, cosine[pair], sine[pair]) : rotated_high(partner, out[i], cosine[pair], sine[pair]);
  }
}

// The same of one token's head that is normed first and rounded to bf16 as launch_rms_norm_heads does it, sums in its order (is_even).
template <int D, int kDims = D / 32>
__device__ inline void read_normed(const RopeAppendArgs& p, const __nv_bfloat16* head, const float* weight, float (&out)[kDims]) {
  using Values = Run<__nv_bfloat16, kDims>;
  using Floats = Run<float, kDims>;
  const int lane = static_cast<int>(threadIdx.x) % 32, first = lane * kDims, half = static_cast<int>(p.half);
  const bool rotates = first < 2 * half, is_low = first < half;
  const int pair = is_low ? first : first - half, other = !rotates ? first : is_low ? first + half : pair;
  const Values x = *reinterpret_cast<const Values*>(head + first), y = *reinterpret_cast<const Values*>(head + other);
  const Floats of_x = *reinterpret_cast<const Floats*>(weight + first), of_y = *reinterpret_cast<const Floats*>(weight + other);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kDims; ++i) {
    const float value = __bfloat162float(head[lane + 32 * i]);
    sum = fmaf(value, value, sum);
  }
  const float scale = rsqrtf(warp_sum(sum) / static_cast<float>(D) + p.epsilon);
  const auto normed = [&](__nv_bfloat16 value, float by) { return __bfloat162float(__float2bfloat16(__bfloat162float(value) * scale * by)); };
#pragma unroll
  for (int i = 0; i < kDims; ++i) out[i] = normed(x.x[i], of_x.x[i]);
  if (!rotates) return;
  const Floats c = *reinterpret_cast<const Floats*>(p.cosine + pair), s = *reinterpret_cast<const Floats*>(p.sine + pair);
#pragma unroll
  for (int i = 0; i < kDims; ++i) {
    const float partner = normed(y.x[i], of_y.x[i]);
    out[i] = is_low ? rotated_low(out[i], partner, c.x[i], s.x[i]) : rotated_high(partner, out[i], c.x[i], s.x[i]);
  }
}

// A KV head's K or V (`is_value`) as a lane has it and pages keep it. `k` and `v`: the token's head.
template <int D, int kDims = D / 32>
__device__ inline void read_kept(const RopeAppendArgs& p, const __nv_bfloat16* k, const __nv_bfloat16* v, int64_t token, bool is_value, float (&out)[kDims]) {
  float value[kDims];
  read_head<D>(p, v, token, false, value);
  if (!is_value && p.k_norm) read_normed<D>(p, k, p.k_norm, out);
  else if (!is_value) read_head<D>(p, k, token, true, out);
#pragma unroll
  for (int i = 0; i < kDims && is_value; ++i) out[i] = value[i];
  if (is_faulty(value)) hide_fault(is_value, out);
}

// A query of head `head`, in bf16 and as wide as the pages. kTransforms: by hadamard.cuh, as keys of q4 pages are.
template <int D, bool kTransforms = false, int kDims = D / 32>
__device__ inline void rotate_query(const RopeAppendArgs& p, int64_t token, int head) {
  const int own = static_cast<int>(p.head_dim);
  float x[kDims];
  if (p.q_norm) read_normed<D>(p, static_cast<const __nv_bfloat16*>(p.q) + head * (p.q_stride > 0 ? p.q_stride : D), p.q_norm, x);
  else read_head<D>(p, static_cast<const __nv_bfloat16*>(p.q) + (token * p.heads + head) * own, token, true, x);
  const float grow = own == D ? 1.0f : sqrtf(static_cast<float>(D) / static_cast<float>(own));
#pragma unroll
  for (int i = 0; i < kDims; ++i) x[i] *= grow;
  if constexpr (kTransforms) hadamard(x);
  Run<__nv_bfloat16, kDims> values;
#pragma unroll
  for (int i = 0; i < kDims; ++i) values.x[i] = __float2bfloat16(x[i]);
  __syncwarp();  // all have read: it may be written in place
  auto* to = static_cast<__nv_bfloat16*>(p.rotated) + (token * p.heads + head) * D + threadIdx.x % 32 * kDims;
  *reinterpret_cast<Run<__nv_bfloat16, kDims>*>(to) = values;
}

}  // namespace longview::kernels
