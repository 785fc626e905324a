// What DeltaNet takes its queries, keys, values and gates from: a causal convolution over each channel's last four inputs, SiLU, and the
// norm of heads of queries and keys. A warp has a head and up to 16 tokens of it, a lane the same D / 32 channels of all of them.
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"
#include "kernels/ptx/f16.cuh"
#include "kernels/recurrent/delta_net.cuh"

namespace longview::kernels {
namespace {

constexpr int kWarps = 4, kTokens = 16;
static_assert(kTokens >= kDeltaRowTokens);

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
template <int kChannels>
__device__ inline void write_lane(__half* to, const float (&x)[kChannels]) {
  const auto pair = [&](int i) { return ptx::pack_f16(ptx::within_f16(x[i]), ptx::within_f16(x[i + 1 < kChannels ? i + 1 : i])); };
  if constexpr (kChannels == 4) *reinterpret_cast<uint2*>(to) = {pair(0), pair(2)};
  else if constexpr (kChannels == 2) *reinterpret_cast<uint32_t*>(to) = pair(0);
  else *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(pair(0));
}

__device__ inline float2 gates_of(const DeltaNetArgs& a, int64_t token, int64_t head) {
  constexpr float kLog2E = 1.4426950408889634f;
  const int64_t at = token * a.value_heads + head;
  const float x = __bfloat162float(static_cast<const __nv_bfloat16*>(a.alpha)[at]) + a.dt_bias[head];
  const float rate = a.decay[head] * (x > 20.0f ? x : log1pf(expf(x))) * kLog2E;
  // Less than float32 tells from nothing is not summed up over a chunk: the sums would lose what later tokens differ by.
  return {rate < -150.0f ? -150.0f : rate, 1.0f / (1.0f + expf(-__bfloat162float(static_cast<const __nv_bfloat16*>(a.beta)[at])))};
}

template <int D, typename Out>
__global__ void __launch_bounds__(kWarps * 32) delta_conv_kernel(const DeltaPlan p) {
  constexpr int kChannels = D / 32, kPast = static_cast<int>(kConvWidth) - 1;
  const DeltaNetArgs& a = p.args;
  // The next kernel reads S before it waits for this one, so it must not begin before those of earlier tokens are over.
  ptx::wait_for_previous();
  ptx::start_dependents();
  const int64_t head = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (head >= 2 * a.key_heads + a.value_heads) return;
  const int lane = threadIdx.x % 32;
  const int64_t first = static_cast<int64_t>(blockIdx.y) * kTokens, channel = head * D + lane * kChannels;
  const int count = static_cast<int>(min(static_cast<int64_t>(kTokens), a.tokens - first));
  const auto* in = static_cast<const __nv_bfloat16*>(a.qkv) + channel;

  Lane<kChannels> held[kPast + kTokens];
#pragma unroll
  for (int i = 0; i < kTokens; ++i)
    if (i < count) held[kPast + i].read(in + (first + i) * p.channels);
  if (first > 0) {
#pragma unroll
    for (int i = 0; i < kPast; ++i) held[i].read(in + (first + i - kPast) * p.channels);
  } else {
    const auto* past = reinterpret_cast<const __nv_bfloat16*>(state_before(p) + conv_offset(p)) + channel;
    auto* next = reinterpret_cast<__nv_bfloat16*>(state_after(p) + conv_offset(p)) + channel;
#pragma unroll
    for (int i = 0; i < kPast; ++i) held[i].read(past + i * p.channels);
    // The inputs before token T. Nobody else reads these channels' earlier ones.
#pragma unroll
    for (int i = 0; i < kPast; ++i) {
      const int64_t token = a.tokens - kPast + i;
      Lane<kChannels> last;
      if (token >= 0) last.read(in + token * p.channels);
#pragma unroll
      for (int j = i + 1; j < kPast; ++j)
        if (token == j - kPast) last = held[j];
      last.write(next + i * p.channels);
    }
  }

  float4 weight[kChannels];
#pragma unroll
  for (int c = 0; c < kChannels; ++c) weight[c] = reinterpret_cast<const float4*>(a.conv)[channel + c];
  const bool normed = head < 2 * a.key_heads;
  const float factor = head < a.key_heads ? rsqrtf(static_cast<float>(D)) : 1.0f;
  auto* out = static_cast<Out*>(p.x) + channel;
#pragma unroll
  for (int i = 0; i < kTokens; ++i) {
    if (i >= count) break;
    float x[kChannels];
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      const float sum = weight[c].x * __bfloat162float(held[i].x[c]) + weight[c].y * __bfloat162float(held[i + 1].x[c]) + weight[c].z * __bfloat162float(held[i + 2].x[c]) + weight[c].w * __bfloat162float(held[i + 3].x[c]);
      x[c] = silu(sum);
    }
    if (normed) {
      float squares = 0;
#pragma unroll
      for (int c = 0; c < kChannels; ++c) squares = fmaf(x[c], x[c], squares);
      const float scale = rsqrtf(warp_sum(squares) + 1e-6f) * factor;
#pragma unroll
      for (int c = 0; c < kChannels; ++c) x[c] *= scale;
    }
    write_lane(out + (first + i) * p.channels, x);
  }

  const int64_t value_head = head - 2 * a.key_heads;
  if (value_head >= 0 && lane < count) p.gates[value_head * a.tokens + first + lane] = gates_of(a, first + lane, value_head);
}

template <int D>
Status launch(const DeltaPlan& p, Stream stream) {
  const int64_t heads = 2 * p.args.key_heads + p.args.value_heads;
  const dim3 grid(static_cast<unsigned>(ceil_div(heads, kWarps)), static_cast<unsigned>(ceil_div(p.args.tokens, kTokens)));
  return launch_dependent(p.args.tokens <= kDeltaRowTokens ? delta_conv_kernel<D, float> : delta_conv_kernel<D, __half>, grid, kWarps * 32, 0, stream, p);
}

}  // namespace

Status launch_delta_conv(const DeltaPlan& plan, Stream stream) {
  return plan.args.head_dim == 32 ? launch<32>(plan, stream) : plan.args.head_dim == 64 ? launch<64>(plan, stream) : launch<128>(plan, stream);
}

}  // namespace longview::kernels
