// Plans of query heads as the kernels take them: heads of one KV head with equal plans share tiles,
// but for vertical-slash and block-sparse heads, which choose each by its own queries.
#pragma once

#include <span>
#include <vector>

#include "kernels/api/sparse.h"
#include "sparse/pattern.h"

namespace longview::cuda {

struct HeadGroups {
  std::vector<kernels::HeadGroup> groups;  // those that visit the most first
  int64_t tiles = 0;                       // of `tokens` query tokens
  int64_t slash_group = 0, slash_groups = 0, block_groups = 0;  // as SparseArgs has them
};

// plans [H].
HeadGroups group_heads(std::span<const HeadPlan> plans, int64_t kv_heads, int64_t tokens);

}  // namespace longview::cuda
