// Queries, keys, values and gates (conv_head.cuh) of more tokens than delta_row takes. A warp has a head and up to 16 tokens of it, a lane
// the same D / 32 channels of all of them.
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"
#include "kernels/recurrent/conv_head.cuh"

namespace longview::kernels {
namespace {

constexpr int kWarps = 4, kTokens = 16;

template <int D>
__global__ void __launch_bounds__(kWarps * 32) delta_conv_kernel(const DeltaPlan p) {
  constexpr int kChannels = D / 32, kPast = kPastInputs;
  const DeltaNetArgs& a = p.args;
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
  auto* out = static_cast<__half*>(p.x) + channel;
#pragma unroll
  for (int i = 0; i < kTokens; ++i) {
    if (i >= count) break;
    float x[kChannels];
    convolve(held + i, weight, x);
    if (normed) norm_head(x, factor);
    write_lane(out + (first + i) * p.channels, x);
  }

  const int64_t value_head = head - 2 * a.key_heads;
  if (value_head >= 0 && lane < count) p.gates[value_head * a.tokens + first + lane] = gates_of(a, first + lane, value_head, a.dt_bias[value_head], a.decay[value_head]);
}

template <int D>
Status launch(const DeltaPlan& p, Stream stream) {
  const int64_t heads = 2 * p.args.key_heads + p.args.value_heads;
  const dim3 grid(static_cast<unsigned>(ceil_div(heads, kWarps)), static_cast<unsigned>(ceil_div(p.args.tokens, kTokens)));
  return launch_dependent(delta_conv_kernel<D>, grid, kWarps * 32, 0, stream, p);
}

}  // namespace

Status launch_delta_conv(const DeltaPlan& plan, Stream stream) {
  return plan.args.head_dim == 32 ? launch<32>(plan, stream) : plan.args.head_dim == 64 ? launch<64>(plan, stream) : launch<128>(plan, stream);
}

}  // namespace longview::kernels
