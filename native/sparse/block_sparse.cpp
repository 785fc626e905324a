#include "sparse/block_sparse.h"

#include <algorithm>
#include <vector>

#include "base/larger_first.h"

namespace longview::sparse {

KeySet block_sparse_keys(const HeadPlan& plan, int64_t end_position, std::span<const float> scores) {
  const auto blocks = static_cast<int64_t>(scores.size());
  const int64_t own = (end_position + kPoolTokens - 1) / kPoolTokens - blocks;
  const int64_t budget = std::clamp<int64_t>(plan.blocks - own, 0, blocks);
  std::vector<int32_t> order = largest(scores, budget);
  std::sort(order.begin(), order.end());

  KeySet keys;
  const auto add = [&](int64_t begin, int64_t end) {
    if (!keys.ranges.empty() && keys.ranges.back().end == begin) keys.ranges.back().end = end;
    else keys.ranges.push_back({begin, end});
  };
  for (const int32_t block : order) add(block * kPoolTokens, (block + 1) * kPoolTokens);
  add(blocks * kPoolTokens, end_position);
  return keys;
}

}  // namespace longview::sparse
