#include <cmath>

#include "kernels/attention/attention.cuh"
#include "kernels/cache/page_means.cuh"
#include "kernels/common/launch.cuh"

namespace longview::kernels {
namespace {

constexpr int64_t kLeastPartTokens = 256, kLeastDecodePartTokens = 128;  // a part shorter than this costs more to merge than it saves
constexpr int64_t kCounters = 4096;                                      // at the workspace's beginning

int64_t block_shared_bytes(const AttentionPlan& p) {
  const int64_t d = p.args.kv.head_dim;
  if (p.tile_rows > kJoinRows) return attention_sm80_shared_bytes(p.tile_rows, d);
  switch (p.args.kv.format) {
    case PageFormat::kQ8: return attention_q8_shared_bytes(d);
    case PageFormat::kQ4: return attention_q4_shared_bytes(d);
    case PageFormat::kE4M3: return attention_e4m3_shared_bytes(d);
    case PageFormat::kBFloat16: break;
  }
  return decode_shared_bytes(d);
}

// Blocks that a multiprocessor holds, by their shared memory: split work fills it once, without a rest.
int64_t resident_blocks(const AttentionPlan& p) {
  const int64_t blocks = std::max<int64_t>(1, device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / (block_shared_bytes(p) + 1024));
  return p.tile_rows <= kJoinRows ? std::min(blocks, kJoinBlocks) : blocks;
}

// Of a part of the keys.
int64_t blocks_of(const AttentionPlan& p) { return p.tiles * p.args.kv.kv_heads; }

// Recorded work reads the position on the device, which those of sm_90 do not.
bool takes_sm90(const AttentionArgs& args) { return on_sm90(args.architecture) && !args.position; }

AttentionPlan plan_for(const AttentionArgs& args) {
  AttentionPlan p{args, args.heads / args.kv.kv_heads, 0, 0, 0, 1, 0, nullptr, nullptr, nullptr, nullptr};
  p.rows = args.tokens * p.group;
  const bool codes = args.kv.format != PageFormat::kBFloat16 && !attention_multiplies_e4m3(args), decode = !codes && p.rows <= kJoinRows;
  p.tile_rows = codes ? code_rows(args.kv.head_dim) : decode ? kJoinRows : p.rows > 64 && holds_128_rows(args.kv.head_dim) ? 128 : 64;
  p.tiles = ceil_div(p.rows, p.tile_rows);
  p.scale = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(args.kv.head_dim)));
  const int64_t end = args.first_position + args.tokens, seen = args.span > 0 ? std::min(end, args.span + args.tokens) : end;
  const int64_t blocks = blocks_of(p), wanted = resident_blocks(p) * args.multiprocessors;
  if (blocks < args.multiprocessors)
    p.parts = std::clamp<int64_t>(seen / (decode ? kLeastDecodePartTokens : kLeastPartTokens), 1, std::clamp<int64_t>(wanted / blocks, 1, codes || decode ? kMostJoinedParts : kMostParts));
  const int64_t results = p.parts * args.kv.kv_heads * p.rows;
  if (args.workspace && p.parts > 1) {
    p.counters = reinterpret_cast<uint32_t*>(args.workspace);
    p.output = args.workspace + kCounters;
    p.maximum = p.output + results * args.kv.head_dim;
    p.sum = p.maximum + results;
  }
  return p;
}

Status launch_cut(const AttentionPlan& p, Stream stream) {
  const PageFormat format = p.args.kv.format;
  if (format == PageFormat::kQ8) return launch_attention_q8(p, stream);
  if (format == PageFormat::kQ4) return launch_attention_q4(p, stream);
  if (format == PageFormat::kE4M3 && p.tile_rows <= kJoinRows) return launch_attention_e4m3(p, stream);
  if (p.tile_rows == kJoinRows) return launch_decode_attention(p, stream);
  if (takes_sm90(p.args) && p.tile_rows == 128 && p.parts == 1) return launch_attention_sm90(p, stream);
  return launch_attention_sm80(p, stream);
}

}  // namespace

bool holds_128_rows(int64_t head_dim) { return head_dim <= 128 || attention_sm80_shared_bytes(128, head_dim) <= device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin); }

bool attention_multiplies_e4m3(const AttentionArgs& args) {
  const int64_t rows = args.tokens * (args.heads / args.kv.kv_heads);
  return args.kv.format == PageFormat::kE4M3 && args.kv.head_dim <= 128 && takes_sm90(args) && rows > 64 && ceil_div(rows, 128) * args.kv.kv_heads >= args.multiprocessors;
}

bool attention_appends(const AttentionArgs& args) {
  return args.tokens == 1 && args.kv.format == PageFormat::kBFloat16 && args.kv.head_dim <= 128 && args.kv.kv_heads > 0 && args.heads / args.kv.kv_heads <= kJoinRows;
}

int64_t attention_workspace_floats(const AttentionArgs& args) {
  const AttentionPlan p = plan_for(args);
  return p.parts > 1 ? kCounters + p.parts * args.kv.kv_heads * p.rows * (args.kv.head_dim + 2) : 0;
}

Status launch_attention(const AttentionArgs& args, Stream stream) {
  const int64_t kv_heads = args.kv.kv_heads;
  if (args.tokens <= 0 || args.first_position < 0 || args.multiprocessors <= 0 || args.span < 0) return kInvalidShape;
  if (kv_heads <= 0 || args.heads <= 0 || args.heads % kv_heads != 0 || args.heads > 4096) return kInvalidShape;
  if (args.kv.head_dim != 64 && args.kv.head_dim != 128 && args.kv.head_dim != 256) return kInvalidShape;
  if (!aligned(args.q) || !aligned(args.out)) return kInvalidAlignment;
  const AttentionPlan p = plan_for(args);
  if (p.tiles > kLargestGrid || kv_heads * p.parts > 65535 || (p.parts > 1 && (!args.workspace || blocks_of(p) > kCounters))) return kInvalidShape;
  if (const AppendedToken& token = args.appended; token.k) {
    if (!attention_appends(args) || !token.v || !token.cosine || !token.sine) return kInvalidShape;
    if (!aligned(token.k) || !aligned(token.v) || !aligned(token.cosine) || !aligned(token.sine)) return kInvalidAlignment;
  }
  if (args.gates) {
    if (!attention_gates(args) || p.tile_rows > kJoinRows || args.gate_stride < args.kv.head_dim || args.gate_stride % 8 != 0) return kInvalidShape;
    if (!aligned(args.gates)) return kInvalidAlignment;
  }
  if (const Status status = launch_cut(p, stream)) return status;
  return args.appended.k ? launch_page_means(args.kv, args.first_position, 1, stream) : kOk;
}

}  // namespace longview::kernels
