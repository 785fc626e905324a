// Plans of query heads as the kernels take them: heads of one KV head with equal plans share tiles.
#pragma once

#include <span>
#include <vector>

#include "kernels/api/sparse.h"
#include "sparse/pattern.h"

namespace longview::cuda {

struct HeadGroups {
  std::vector<kernels::HeadGroup> groups;  // those that visit the most first
  int64_t tiles = 0;                       // of `tokens` query tokens
};

// plans [H]. A pattern without a kernel here is dense.
HeadGroups group_heads(std::span<const HeadPlan> plans, int64_t kv_heads, int64_t tokens);

}  // namespace longview::cuda
