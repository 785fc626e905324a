#include "kernels/recurrent/delta_net.cuh"

#include "kernels/common/launch.cuh"

namespace longview::kernels {
namespace {

constexpr int64_t kMostHeads = 16384;

bool aligned_256(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 256 == 0; }

// Tokens `first` .. of a call, at most kDeltaPartTokens, as a call of their own.
DeltaPlan plan_for(const DeltaNetArgs& args, int64_t first) {
  DeltaPlan p{args, delta_channels(args.key_heads, args.value_heads, args.head_dim), 0, first > 0, nullptr, nullptr, nullptr};
  DeltaNetArgs& a = p.args;
  const int64_t values = args.value_heads * args.head_dim;
  a.tokens = std::min(args.tokens - first, kDeltaPartTokens);
  a.qkv = static_cast<const __nv_bfloat16*>(args.qkv) + first * p.channels;
  a.z = static_cast<const __nv_bfloat16*>(args.z) + first * values;
  a.alpha = static_cast<const __nv_bfloat16*>(args.alpha) + first * args.value_heads;
  a.beta = static_cast<const __nv_bfloat16*>(args.beta) + first * args.value_heads;
  a.out = static_cast<__nv_bfloat16*>(args.out) + first * values;
  if (a.tokens <= kDeltaRowTokens) return p;
  p.chunks = ceil_div(a.tokens, kDeltaChunkTokens);
  char* at = static_cast<char*>(args.workspace);
  const auto take = [&](int64_t bytes) {
    char* taken = at;
    at += ceil_div(bytes, 256) * 256;
    return taken;
  };
  p.x = take(p.chunks * kDeltaChunkTokens * p.channels * 2);
  p.gates = reinterpret_cast<float2*>(take(a.tokens * args.value_heads * 8));
  p.tiles = take(p.chunks * args.value_heads * kDeltaTileBytes);
  return p;
}

Status launch_part(const DeltaPlan& p, Stream stream) {
  if (p.chunks == 0) return launch_delta_row(p, stream);
  if (const Status status = launch_chunk_conv(p, stream)) return status;
  if (const Status status = launch_delta_chunks(p, stream)) return status;
  if (const Status status = launch_delta_scan(p, stream)) return status;
  return launch_delta_norm(p, stream);
}

}  // namespace

Status launch_delta_net(const DeltaNetArgs& args, Stream stream) {
  if (args.tokens <= 0 || args.key_heads <= 0 || args.value_heads <= 0 || args.value_heads % args.key_heads != 0 || args.value_heads > kMostHeads) return kInvalidShape;
  if (args.head_dim != 32 && args.head_dim != 64 && args.head_dim != 128) return kInvalidShape;
  if (!aligned(args.qkv) || !aligned(args.z) || !aligned(args.conv) || !aligned(args.norm) || !aligned(args.out) || !aligned_256(args.workspace)) return kInvalidAlignment;
  if (args.input && (args.tokens != 1 || args.k <= 0 || args.k % 8 != 0 || !args.alpha_weight || !args.beta_weight)) return kInvalidShape;
  if (!aligned(args.input) || !aligned(args.alpha_weight) || !aligned(args.beta_weight)) return kInvalidAlignment;
  if (args.states ? args.state_offset < 0 || args.state_offset % 256 != 0 : !aligned_256(args.before) || !aligned_256(args.after)) return kInvalidAlignment;
  if (!args.states && (!args.before || !args.after || args.before == args.after)) return kInvalidShape;
  if (!args.workspace && args.tokens > kDeltaRowTokens) return kInvalidShape;
  for (int64_t first = 0; first < args.tokens; first += kDeltaPartTokens)
    if (const Status status = launch_part(plan_for(args, first), stream)) return status;
  return kOk;
}

}  // namespace longview::kernels
