// Sparse prefill attention of a layer on the GPU, and what its heads visited.
#pragma once

#include <span>
#include <vector>

#include "cuda/head_groups.h"
#include "cuda/page_tables.h"

namespace longview::cuda {

// A chunk's rows of a layer, in bf16 and as wide as the pages' heads.
struct SparseRows {
  const void* queries;
  void* results;
  int64_t tokens, heads, first_position;
};

class SparseAttention {
 public:
  SparseAttention(const Device& device, PageTables& tables) : device_(device), tables_(tables) {}

  // Whether these kernels run it, and it is worth it: few tiles leave the device idle where dense attention splits the keys.
  bool takes(std::span<const HeadPlan> plans, const HeadGroups& groups, const KvShape& shape, const AttentionLayer& layer, int64_t length) const;
  void attend(const SparseRows& rows, const HeadGroups& groups, const KvShape& shape, const AttentionLayer& layer, const KvPages& pages);
  // Dense attention was run in its place.
  void count_dense(const KvShape& shape, int64_t layer, int64_t tokens, int64_t heads, int64_t first_position);

  // Since the last call, as Backend::take_coverage has it.
  void take_coverage(std::span<HeadCoverage> out);

 private:
  const Device& device_;
  PageTables& tables_;
  Buffer groups_, index_, counters_;
  std::vector<HeadCoverage> dense_;  // of layers and heads
};

}  // namespace longview::cuda
