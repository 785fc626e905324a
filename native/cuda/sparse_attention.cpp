#include "cuda/sparse_attention.h"

#include <algorithm>
#include <utility>

#include "cuda/weights.h"

namespace longview::cuda {

bool SparseAttention::takes(std::span<const HeadPlan> plans, const HeadGroups& groups, const KvShape& shape, const AttentionLayer& layer, int64_t length) const {
  const bool all_dense = std::all_of(plans.begin(), plans.end(), [](const HeadPlan& plan) { return plan.pattern == Pattern::kDense; });
  const bool sinks_fit = !layer.sinks || page_dim(shape.head_dim) == kernels::kSinkHeadDim;
  return !all_dense && sinks_fit && shape.mean_tokens > 0 && groups.tiles >= device_.properties().multiprocessors && length <= kernels::kMostSparsePages * kPageTokens;
}

void SparseAttention::attend(const SparseRows& rows, const HeadGroups& groups, const KvShape& shape, const AttentionLayer& layer, const KvPages& pages) {
  const kernels::Library& library = device_.library();
  const kernels::Stream stream = device_.stream();
  const int64_t counter_bytes = shape.layers * rows.heads * static_cast<int64_t>(sizeof(kernels::HeadCounters)), length = rows.first_position + rows.tokens;
  if (counters_.bytes() < counter_bytes) {
    counters_.grow(device_, counter_bytes, "the counters of sparse attention");
    device_.check(library.fill(counters_.as(), 0, static_cast<size_t>(counter_bytes), stream), "clearing counters");
  }
  groups_.grow(device_, rows.heads * static_cast<int64_t>(sizeof(kernels::HeadGroup)), "the plans of heads");
  device_.check(library.copy_to_device(groups_.as(), groups.groups.data(), groups.groups.size() * sizeof(kernels::HeadGroup), stream), "sending the plans of heads");

  kernels::SparseArgs args{rows.queries, rows.results, tables_.paged(shape, layer.index, pages, length), rows.tokens, rows.heads, rows.first_position, groups_.as<kernels::HeadGroup>(), static_cast<int64_t>(groups.groups.size()), groups.tiles,
                           counters_.as<kernels::HeadCounters>() + layer.index * rows.heads, nullptr, device_.properties().multiprocessors, 0, groups.slash_group, groups.slash_groups, groups.block_groups, floats(layer.sinks)};
  if (shape.format != KvFormat::kBFloat16 && !library.sparse_multiplies_e4m3(args)) args.kv = tables_.expanded(shape, layer.index, pages, length);
  index_.grow(device_, kernels::sparse_layout(args).bytes, "the index of sparse attention");
  args.workspace = index_.as();
  device_.check(library.sparse_index(args, stream), "choosing pages");
  device_.check(library.sparse_coverage(args, stream), "probing");
  if (std::any_of(groups.groups.begin(), groups.groups.end(), [](const kernels::HeadGroup& group) { return group.means != 0; }))
    device_.check(library.sparse_stand_ins(args, stream), "weighing pages that are left out");
  device_.check(library.sparse_attention(args, stream), "attending");
}

void SparseAttention::count_dense(const KvShape& shape, int64_t layer, int64_t tokens, int64_t heads, int64_t first_position) {
  dense_.resize(static_cast<size_t>(shape.layers * heads));
  const double seen = static_cast<double>(tokens) * (static_cast<double>(first_position) + (static_cast<double>(tokens) + 1) / 2);
  for (int64_t h = 0; h < heads; ++h) dense_[static_cast<size_t>(layer * heads + h)] += {seen, seen, 0, 0};
}

void SparseAttention::take_coverage(std::span<HeadCoverage> out) {
  std::vector<kernels::HeadCounters> counted(out.size());
  if (const size_t bytes = counted.size() * sizeof(kernels::HeadCounters); static_cast<size_t>(counters_.bytes()) >= bytes) {
    device_.check(device_.library().copy_to_host(counted.data(), counters_.as(), bytes, device_.stream()), "reading counters");
    device_.check(device_.library().fill(counters_.as(), 0, bytes, device_.stream()), "clearing counters");
    device_.check(device_.library().synchronize(device_.stream()), "attending");
  }
  dense_.resize(out.size());
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = std::exchange(dense_[i], {});
    out[i] += {counted[i].visited, counted[i].causal, counted[i].covered, static_cast<int64_t>(counted[i].probes)};
  }
}

}  // namespace longview::cuda
