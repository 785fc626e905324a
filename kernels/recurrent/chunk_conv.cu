// What the chunks of many tokens are made of: queries, keys and values, from a causal convolution over each channel's last four inputs,
// SiLU, and the norm of heads of queries and keys, values times b; and the gates. A lane has eight channels, D / 8 lanes a head, and goes
// from token to token: it keeps the three inputs before, in a ring of four, and has the next four on their way. Results lie as
// chunk_tile.cuh says.
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"
#include "kernels/ptx/f16.cuh"
#include "kernels/recurrent/chunk_tile.cuh"
#include "kernels/recurrent/conv_head.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = 128, kWidth = static_cast<int>(kConvWidth), kPast = kPastInputs;

// A block has `tokens` tokens of 1,024 channels, a multiple of four that divides 64. Rows behind the last token are zeros.
template <int D>
__global__ void __launch_bounds__(kThreads, 4) chunk_conv_kernel(const DeltaPlan p, int tokens) {
  constexpr int kLanes = D / 8;
  const DeltaNetArgs& a = p.args;
  // A later kernel reads S before it waits for this one, so it must not begin before those of earlier tokens are over.
  ptx::wait_for_previous();
  ptx::start_dependents();
  const int64_t vectors = p.channels / 8, vector = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (vector / 32 * 32 >= vectors) return;
  const bool is_there = vector < vectors;  // else the lane only takes part in its warp's sums
  const int64_t channel = min(vector, vectors - 1) * 8, head = channel / D, first = static_cast<int64_t>(blockIdx.y) * tokens;
  const int eight = static_cast<int>(channel % D / 8), count = static_cast<int>(max(min(static_cast<int64_t>(tokens), a.tokens - first), int64_t{0}));
  char* out = ChunkRows<D>::of(p, first / kChunk, head);
  const int row = static_cast<int>(first % kChunk);
  const auto write = [&](int token, uint4 result) {
    if (is_there) *reinterpret_cast<uint4*>(out + ChunkRows<D>::at(row + token, eight)) = result;
  };
  if (count == 0) {
    for (int token = 0; token < tokens; ++token) write(token, uint4{});
    return;
  }
  const auto* in = static_cast<const __nv_bfloat16*>(a.qkv) + first * p.channels + channel;
  const auto read = [](const __nv_bfloat16* from) { return *reinterpret_cast<const uint4*>(from); };
  const int64_t value_head = head - 2 * a.key_heads;
  const auto* next_beta = static_cast<const __nv_bfloat16*>(a.beta) + first * a.value_heads + max(value_head, int64_t{0});

  uint4 ahead[kWidth];
  __nv_bfloat16 beta[kWidth];
  const auto* next_in = in;
  int left = count;
  const auto look_ahead = [&](int i) {
    ahead[i] = left > 0 ? read(next_in) : uint4{};
    if (left > 0) beta[i] = *next_beta;
    next_in += p.channels;
    next_beta += a.value_heads;
    --left;
  };
#pragma unroll
  for (int i = 0; i < kWidth; ++i) look_ahead(i);
  float x[kWidth][8];
  if (first == 0) {
    const auto* past = reinterpret_cast<const uint4*>(state_before(p) + conv_offset(p));
    auto* next = reinterpret_cast<uint4*>(state_after(p) + conv_offset(p));
    uint4 last[kPast];
#pragma unroll
    for (int i = 0; i < kPast; ++i) {
      unpack_bf16x8(past[i * vectors + channel / 8], x[i]);
      last[i] = read(in + (a.tokens - kPast + i) * p.channels);
    }
    // The inputs before the next call's. Nobody else reads these channels' earlier ones.
#pragma unroll
    for (int i = 0; i < kPast; ++i)
      if (is_there) next[i * vectors + channel / 8] = last[i];
  } else {
#pragma unroll
    for (int i = 0; i < kPast; ++i) unpack_bf16x8(read(in + (i - kPast) * p.channels), x[i]);
  }
  float4 weight[8];
#pragma unroll
  for (int c = 0; c < 8; ++c) weight[c] = reinterpret_cast<const float4*>(a.conv)[channel + c];

  const bool any_normed = vector / 32 * 32 * 8 < 2 * a.key_heads * D, normed = head < 2 * a.key_heads;
  const float factor = head < a.key_heads ? rsqrtf(static_cast<float>(D)) : 1.0f;
#pragma unroll 1
  for (int token = 0; token < tokens; token += kWidth) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      unpack_bf16x8(ahead[i], x[(kPast + i) % kWidth]);
      float scale = sigmoid(__bfloat162float(beta[i]));  // b
      look_ahead(i);
      float y[8], squares = 0;
#pragma unroll
      for (int c = 0; c < 8; ++c) {
        y[c] = silu(weight[c].x * x[i][c] + weight[c].y * x[(i + 1) % kWidth][c] + weight[c].z * x[(i + 2) % kWidth][c] + weight[c].w * x[(i + 3) % kWidth][c]);
        squares = fmaf(y[c], y[c], squares);
      }
      if (any_normed) {
#pragma unroll
        for (int step = kLanes / 2; step > 0; step /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, step);
        if (normed) scale = rsqrtf(squares + 1e-6f) * factor;
      }
      const auto pair = [&](int c) { return token + i < count ? ptx::pack_f16_within(y[c] * scale, y[c + 1] * scale) : 0u; };
      write(token + i, {pair(0), pair(2), pair(4), pair(6)});
    }
  }

  if (!is_there || value_head < 0) return;
  for (int token = eight; token < count; token += kLanes) p.gates[value_head * a.tokens + first + token] = gates_of(a, first + token, value_head, a.dt_bias[value_head], a.decay[value_head]);
}

template <int D>
Status launch(const DeltaPlan& p, Stream stream) {
  // Longer runs of tokens read less twice; shorter ones are more.
  const int tokens = p.args.tokens < 1024 ? 16 : 32;
  const dim3 grid(static_cast<unsigned>(ceil_div(p.channels / 8, kThreads)), static_cast<unsigned>(p.chunks * (kChunk / tokens)));
  return launch_dependent(chunk_conv_kernel<D>, grid, kThreads, 0, stream, p, tokens);
}

}  // namespace

Status launch_chunk_conv(const DeltaPlan& plan, Stream stream) {
  return plan.args.head_dim == 32 ? launch<32>(plan, stream) : plan.args.head_dim == 64 ? launch<64>(plan, stream) : launch<128>(plan, stream);
}

}  // namespace longview::kernels
