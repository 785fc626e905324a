// DeltaNet of few tokens, one after the other, in one launch: a block has a value head, whose S is read once, kept in registers and written
// once, all in float32. It makes queries, keys, values and gates for itself, those of a key head as the other blocks do that share it, and of
// a single token alpha and beta too where that is asked for.
//
// A thread has four columns of D / 16 rows. S^T k and S^T q are both taken from S as it was, so that the block meets twice a token: with
// d = b (v - exp(g) S^T k), o = exp(g) S^T q + (k q) d.
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"
#include "kernels/ptx/exp2.cuh"
#include "kernels/ptx/prefetch.cuh"
#include "kernels/recurrent/conv_head.cuh"

namespace longview::kernels {
namespace {

constexpr int kBands = 16;  // of rows
// Of a thread: of a multiprocessor's 65,536 a block of heads of 128 then leaves those of a product's (gemm/matvec_row_staged.cu), 256 threads of 80.
constexpr int kMostRegisters = 88;

__device__ inline float4 add_scaled(float4 sum, float factor, float4 x) {
  return {fmaf(factor, x.x, sum.x), fmaf(factor, x.y, sum.y), fmaf(factor, x.z, sum.z), fmaf(factor, x.w, sum.w)};
}

// A head's rows of alpha's and of beta's weights, of which each of `threads` has vectors of 8 elements: `first`, `first + threads`, ...
struct GateRows {
  const uint4 *alpha, *beta;
  int first, threads, vectors;
  __device__ GateRows(const DeltaNetArgs& a, int64_t head, int begin, int step)
      : alpha(static_cast<const uint4*>(a.alpha_weight) + head * (a.k / 8)), beta(static_cast<const uint4*>(a.beta_weight) + head * (a.k / 8)), first(begin), threads(step), vectors(static_cast<int>(a.k / 8)) {}
  __device__ void prefetch() const {
    for (int i = first; i < vectors; i += threads) ptx::prefetch(alpha + i), ptx::prefetch(beta + i);
  }
  // Times the input: the warp's part of both sums.
  __device__ float2 multiply(const uint4* input) const {
    float2 sum{};
#pragma unroll 2
    for (int i = first; i < vectors; i += threads) {
      float x[8], of_alpha[8], of_beta[8];
      unpack_bf16x8(input[i], x);
      unpack_bf16x8(alpha[i], of_alpha);
      unpack_bf16x8(beta[i], of_beta);
#pragma unroll
      for (int j = 0; j < 8; ++j) sum.x = fmaf(x[j], of_alpha[j], sum.x), sum.y = fmaf(x[j], of_beta[j], sum.y);
    }
    return {warp_sum(sum.x), warp_sum(sum.y)};
  }
};

template <int D>
__global__ void __maxnreg__(kMostRegisters) delta_row_kernel(const DeltaPlan p) {
  constexpr int kWarps = D / 8, kQuads = D / 4, kRows = D / kBands, kChannels = D / 32, kMost = static_cast<int>(kDeltaRowTokens);
  constexpr int kAtOnce = kWarps / 3;  // tokens that are convolved, by a warp each of q, k and v
  static_assert(kWarps % 3 != 0);      // another makes the gates meanwhile
  __shared__ float4 x[3][kMost][kQuads], parts[kBands][2][kQuads], sums[2][kQuads], norms[kQuads];
  __shared__ float2 gates[kMost], shares[kWarps - 3];
  __shared__ float products[kBands], product;
  const DeltaNetArgs& a = p.args;
  const int thread = threadIdx.x, quad = thread % kQuads, band = thread / kQuads, tokens = static_cast<int>(a.tokens);
  const int warp = thread / 32, lane = thread % 32, part = warp % 3, turn = warp / 3;
  const int64_t head = blockIdx.x, key_head = key_head_of(p, head);
  const int64_t channel = (part == 2 ? 2 * a.key_heads + head : part * a.key_heads + key_head) * D + lane * kChannels;
  if (band == 0) norms[quad] = reinterpret_cast<const float4*>(a.norm)[quad];
  const float dt_bias = a.dt_bias[head], decay_weight = a.decay[head];
  const auto* taps = reinterpret_cast<const float4*>(a.conv) + channel;
  ptx::prefetch(taps);
  // Of one token three warps convolve, the others make alpha and beta.
  const bool makes_gates = a.input && warp >= 3;
  const GateRows rows(a, head, thread - 96, kWarps * 32 - 96);
  if (makes_gates) rows.prefetch();
  // States that lie there already (api/recurrent.h) come while the kernels in front end.
  const bool early = a.states && !p.continued;
  if (!early) ptx::wait_for_previous();
  float4 s[kRows];
  const auto* before = reinterpret_cast<const float4*>(state_before(p)) + (head * D + band * kRows) * kQuads + quad;
#pragma unroll
  for (int r = 0; r < kRows; ++r) s[r] = before[r * kQuads];
  // Inputs from token 0 on, and the three before it.
  const auto* in = static_cast<const __nv_bfloat16*>(a.qkv) + channel;
  const auto* earlier = p.continued ? in - kPastInputs * p.channels : reinterpret_cast<const __nv_bfloat16*>(state_before(p) + conv_offset(p)) + channel;
#pragma unroll
  for (int i = 0; i < kPastInputs; ++i) ptx::prefetch(earlier + i * p.channels);
  if (early) ptx::wait_for_previous();
  // Not sooner: beside this block and one of the product in front there is no room for one of the product behind, two of which would share
  // another multiprocessor.
  ptx::start_dependents();

  if (makes_gates) {
    const float2 share = rows.multiply(static_cast<const uint4*>(a.input));
    if (lane == 0) shares[warp - 3] = share;
  }
  for (int token = turn; turn < kAtOnce && token < tokens; token += kAtOnce) {
    Lane<kChannels> held[kPastInputs + 1];
    float4 weight[kChannels];
    float made[kChannels];
#pragma unroll
    for (int i = 0; i <= kPastInputs; ++i) {
      const int from = token + i - kPastInputs;
      held[i].read(from < 0 ? earlier + (token + i) * p.channels : in + from * p.channels);
    }
#pragma unroll
    for (int c = 0; c < kChannels; ++c) weight[c] = taps[c];
    convolve(held, weight, made);
    if (part < 2) norm_head(made, part == 0 ? rsqrtf(static_cast<float>(D)) : 1.0f);
    write_lane(reinterpret_cast<float*>(x[part][token]) + lane * kChannels, made);
    // The last inputs, of a key head by one of its blocks.
    if (token + 1 < tokens || (part < 2 && head != first_value_head(p, key_head))) continue;
    auto* next = reinterpret_cast<__nv_bfloat16*>(state_after(p) + conv_offset(p)) + channel;
#pragma unroll
    for (int i = 0; i < kPastInputs; ++i) held[i + 1].write(next + i * p.channels);
  }
  if (!a.input && warp == kWarps - 1 && lane < tokens) gates[lane] = gates_of(a, lane, head, dt_bias, decay_weight);
  __syncthreads();
  if (a.input && warp == kWarps - 1) {  // the block meets again before it reads them
    const float2 share = lane < kWarps - 3 ? shares[lane] : float2{};
    const float alpha = warp_sum(share.x), beta = warp_sum(share.y);
    if (lane == 0) gates[0] = gates_of(alpha, beta, dt_bias, decay_weight);
  }

  for (int token = 0; token < tokens; ++token) {
    const auto* of_k = reinterpret_cast<const float*>(x[1][token]) + band * kRows;
    const auto* of_q = reinterpret_cast<const float*>(x[0][token]) + band * kRows;
    const int64_t at = (token * a.value_heads + head) * kQuads + quad;
    const uint2 gate = band == 0 ? static_cast<const uint2*>(a.z)[at] : uint2{};
    float4 by_k{}, by_q{};
    float dot = 0;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      by_k = add_scaled(by_k, of_k[r], s[r]);
      by_q = add_scaled(by_q, of_q[r], s[r]);
      dot = fmaf(of_k[r], of_q[r], dot);
    }
    parts[band][0][quad] = by_k;
    parts[band][1][quad] = by_q;
    if (quad == 0) products[band] = dot;
    __syncthreads();
    if (thread < 2 * D) {
      const auto* of_column = reinterpret_cast<const float*>(parts) + thread;
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kBands; ++i) sum += of_column[i * 2 * D];
      reinterpret_cast<float*>(sums)[thread] = sum;
    } else if (thread == 2 * D) {
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kBands; ++i) sum += products[i];
      product = sum;
    }
    __syncthreads();

    const float decay = ptx::exp2(gates[token].x), rate = gates[token].y;
    const float4 value = x[2][token][quad], seen = sums[0][quad];
    const float4 change = {rate * fmaf(-decay, seen.x, value.x), rate * fmaf(-decay, seen.y, value.y), rate * fmaf(-decay, seen.z, value.z), rate * fmaf(-decay, seen.w, value.w)};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float factor = of_k[r];
      s[r] = add_scaled({factor * change.x, factor * change.y, factor * change.z, factor * change.w}, decay, s[r]);
    }
    if (thread >= 32) continue;
    // The first warp has all columns of the result, more than once where heads are narrow.
    const float4 asked = sums[1][quad], norm = norms[quad];
    const float4 o = add_scaled({product * change.x, product * change.y, product * change.z, product * change.w}, decay, asked);
    float squares = o.x * o.x + o.y * o.y + o.z * o.z + o.w * o.w;
#pragma unroll
    for (int step = kQuads / 2; step > 0; step /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, step);
    const float scale = rsqrtf(squares / D + a.epsilon);
    if (band != 0) continue;
    const float2 low = unpack_bf16(gate.x), high = unpack_bf16(gate.y);
    static_cast<uint2*>(a.out)[at] = {pack_bf16(o.x * scale * norm.x * silu(low.x), o.y * scale * norm.y * silu(low.y)),
                                      pack_bf16(o.z * scale * norm.z * silu(high.x), o.w * scale * norm.w * silu(high.y))};
  }

  auto* after = reinterpret_cast<float4*>(state_after(p)) + (head * D + band * kRows) * kQuads + quad;
#pragma unroll
  for (int r = 0; r < kRows; ++r) after[r * kQuads] = s[r];
}

template <int D>
Status launch(const DeltaPlan& p, Stream stream) {
  return launch_dependent(delta_row_kernel<D>, dim3(static_cast<unsigned>(p.args.value_heads)), D * 4, 0, stream, p);
}

}  // namespace

Status launch_delta_row(const DeltaPlan& plan, Stream stream) {
  return plan.args.head_dim == 32 ? launch<32>(plan, stream) : plan.args.head_dim == 64 ? launch<64>(plan, stream) : launch<128>(plan, stream);
}

}  // namespace longview::kernels
