#include "sparse/adaptive.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/larger_first.h"

namespace longview::sparse {

Candidates adaptive_candidates(const HeadPlan& plan, int64_t first_position, int64_t block_tokens) {
  const int64_t begin = (static_cast<int64_t>(plan.sink) + block_tokens - 1) / block_tokens;
  const int64_t end = std::max<int64_t>(first_position + 1 - std::max(plan.window, 1), 0) / block_tokens;  // a row sees itself
  return {begin, std::max(begin, end)};
}

HeadPlan at_length(HeadPlan plan, int64_t length, int64_t block_tokens) {
  const int64_t meant = kShareBlocks * block_tokens;
  if (plan.pattern == Pattern::kAdaptive && plan.rule == AdaptiveRule::kShare && length > meant) plan.threshold *= static_cast<float>(meant) / static_cast<float>(length);
  return plan;
}

void adaptive_select(const HeadPlan& plan, std::span<const float> mass, std::span<uint8_t> keep) {
  if (plan.threshold <= 0) return std::fill(keep.begin(), keep.end(), uint8_t{1});
  if (plan.rule == AdaptiveRule::kMass) {
    std::vector<int32_t> order(mass.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.rbegin(), order.rend(), LargerFirst{mass});  // the smallest comes first
    double left = 0;  // of the mass, over
    for (const int32_t j : order) {
      left += static_cast<double>(mass[static_cast<size_t>(j)]);
      keep[static_cast<size_t>(j)] = !(left <= static_cast<double>(plan.threshold));
    }
    return;
  }
  float least = plan.threshold;
  if (plan.rule == AdaptiveRule::kRelative) least *= mass.empty() ? 0.0f : *std::max_element(mass.begin(), mass.end());
  for (size_t j = 0; j < mass.size(); ++j) keep[j] = !(mass[j] < least);  // what is not a number stays
}

}  // namespace longview::sparse
