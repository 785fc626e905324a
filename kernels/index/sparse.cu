// Checks of a sparse call, its plan, and the choice of kernels.
#include <bit>
#include <cmath>

#include "kernels/cache/page_means.cuh"
#include "kernels/index/sparse.cuh"

namespace longview::kernels {
namespace {

SparsePlan sparse_plan(const SparseArgs& args) {
  const SparseLayout layout = sparse_layout(args);
  auto* at = static_cast<char*>(args.workspace);
  return {args,
          static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(args.kv.head_dim))),
          layout.pages,
          layout.mean_blocks,
          layout.words,
          reinterpret_cast<const __nv_bfloat16*>(at),
          reinterpret_cast<uint32_t*>(at + layout.bits),
          reinterpret_cast<int32_t*>(at + layout.next_tile),
          reinterpret_cast<float*>(at + layout.probes),
          layout.probe_parts,
          reinterpret_cast<float*>(at + layout.gains),
          reinterpret_cast<float*>(at + layout.probe_offsets),
          reinterpret_cast<float*>(at + layout.key_weights),
          reinterpret_cast<uint32_t*>(at + layout.column_bits),
          reinterpret_cast<uint32_t*>(at + layout.diagonal_bits),
          reinterpret_cast<float*>(at + layout.sums),
          reinterpret_cast<float*>(at + layout.pooled),
          reinterpret_cast<const __nv_bfloat16*>(at + layout.fine_means),
          std::countr_zero(static_cast<uint64_t>(means_of_page(layout.pages))),
          at + layout.narrow_means};
}

// kOk where the kernels take these arguments.
Status check_sparse(const SparseArgs& args) {
  const PagedKv& kv = args.kv;
  if (args.tokens <= 0 || args.first_position < 0 || args.multiprocessors <= 0) return kInvalidShape;
  if (kv.kv_heads <= 0 || args.heads <= 0 || args.heads % kv.kv_heads != 0 || args.heads > 4096) return kInvalidShape;
  if (kv.head_dim != 64 && kv.head_dim != 128 && kv.head_dim != 256) return kInvalidShape;
  if (kv.format != PageFormat::kBFloat16 && !sparse_multiplies_e4m3(args)) return kUnsupportedType;
  if (kv.layer < 0 || kv.layer >= kv.layers) return kInvalidShape;
  if (args.first_position > kMostSparsePages * kPageTokens || args.tokens > kMostSparsePages * kPageTokens) return kInvalidShape;
  if (ceil_div(args.first_position + args.tokens, kPageTokens) > kMostSparsePages || args.tokens * args.heads > kLargestGrid) return kInvalidShape;
  if (args.group_count <= 0 || args.group_count > args.heads || args.tiles <= 0 || args.tiles > sparse_tiles(args.tokens, 1) * args.heads) return kInvalidShape;
  if (args.slash_group < 0 || args.slash_groups < 0 || args.block_groups < 0 || args.slash_group + args.slash_groups > args.group_count || args.block_groups > args.group_count) return kInvalidShape;
  if (!args.groups || !args.workspace) return kInvalidShape;
  if (!aligned(args.q) || !aligned(args.out) || reinterpret_cast<uintptr_t>(args.workspace) % 128 != 0) return kInvalidAlignment;
  return kOk;
}

// The means that pages are chosen by, and those that stand for pages until launch_sparse_stand_ins.
Status make_means(const SparsePlan& p, Stream stream) {
  const SparseArgs& args = p.args;
  if (const Status error = clear(p.gains, static_cast<size_t>(args.kv.kv_heads * p.mean_blocks * kPageTokens) * sizeof(float), stream)) return error;
  if (const Status status = launch_gather_means(args.kv, p.pages, const_cast<__nv_bfloat16*>(p.means), p.gains, stream)) return status;
  if (p.mean_shift > 0)
    if (const Status status = launch_fine_means(args.kv, (args.first_position + args.tokens) / kPageTokens, p.mean_blocks, const_cast<__nv_bfloat16*>(p.fine_means), stream)) return status;
  return kOk;
}

}  // namespace

bool sparse_multiplies_e4m3(const SparseArgs& args) {
  return args.kv.format == PageFormat::kE4M3 && args.kv.head_dim <= 128 && on_sm90(args.architecture) && args.slash_groups == 0 && args.block_groups == 0;
}

Status launch_sparse_index(const SparseArgs& args, Stream stream) {
  if (const Status status = check_sparse(args)) return status;
  const SparsePlan p = sparse_plan(args);
  if (has_means(args))
    if (const Status status = make_means(p, stream)) return status;
  return on_sm90(args.architecture) ? launch_index_sm90(p, stream) : launch_index_sm80(p, stream);
}

Status launch_sparse_coverage(const SparseArgs& args, Stream stream) {
  if (const Status status = check_sparse(args)) return status;
  if (!args.counters) return kInvalidShape;
  const SparsePlan p = sparse_plan(args);
  return on_sm90(args.architecture) ? launch_coverage_sm90(p, stream) : launch_coverage_sm80(p, stream);
}

Status launch_sparse_stand_ins(const SparseArgs& args, Stream stream) {
  if (const Status status = check_sparse(args)) return status;
  if (!has_means(args)) return kOk;
  const SparsePlan p = sparse_plan(args);
  const int64_t kv_heads = args.kv.kv_heads, batch = stand_in_batch(p.pages, kv_heads);
  for (int64_t first = 0; first < kv_heads; first += batch) {
    const int64_t count = std::min(batch, kv_heads - first);
    if (const Status status = on_sm90(args.architecture) ? launch_probe_weights_sm90(p, first, count, stream) : launch_probe_weights_sm80(p, first, count, stream)) return status;
    if (const Status status = launch_stand_ins(p, first, count, stream)) return status;
  }
  return kOk;
}

Status launch_sparse_attention(const SparseArgs& args, Stream stream) {
  if (const Status status = check_sparse(args)) return status;
  if (args.sinks && args.kv.head_dim != kSinkHeadDim) return kInvalidShape;
  const SparsePlan p = sparse_plan(args);
  if (args.kv.format == PageFormat::kE4M3)
    if (const Status status = launch_narrow_means(args.kv, p.pages, (args.first_position + args.tokens) / kPageTokens, p.means, const_cast<char*>(p.narrow_means), stream)) return status;
  return on_sm90(args.architecture) ? launch_sparse_attention_sm90(p, stream) : launch_sparse_attention_sm80(p, stream);
}

}  // namespace longview::kernels
