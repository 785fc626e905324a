#include "cuda/head_groups.h"

#include <algorithm>
#include <limits>

namespace longview::cuda {
namespace {

constexpr int32_t kEverything = std::numeric_limits<int32_t>::max();

kernels::PageRule rule_of(AdaptiveRule rule) {
  switch (rule) {
    case AdaptiveRule::kRelative: return kernels::PageRule::kRelative;
    case AdaptiveRule::kShare: return kernels::PageRule::kShare;
    case AdaptiveRule::kMass: break;
  }
  return kernels::PageRule::kMass;
}

kernels::HeadGroup group_of(const HeadPlan& plan) {
  kernels::HeadGroup group{};
  group.window = kEverything;
  group.rule = kernels::PageRule::kNone;
  if (plan.pattern == Pattern::kAShape) {
    group.sink = std::max(plan.sink, 0);
    group.window = std::max(plan.window, 1);  // a row always sees itself
    group.limited = group.sink < kEverything - group.window;
    if (!group.limited) group.window = kEverything;
  } else if (plan.pattern == Pattern::kAdaptive) {
    group.sink = std::max(plan.sink, 0);
    group.window = std::max(plan.window, 0);
    group.rule = rule_of(plan.rule);
    group.threshold = plan.threshold;
    group.means = 1;
  } else if (plan.pattern == Pattern::kVerticalSlash) {
    group.window = 0;
    group.rule = kernels::PageRule::kSlash;
    group.columns = plan.columns;
    group.diagonals = plan.diagonals;
  } else if (plan.pattern == Pattern::kBlockSparse) {
    group.window = 0;
    group.rule = kernels::PageRule::kBlocks;
    group.blocks = plan.blocks;
  }
  return group;
}

// Dense heads first, windows alone last; vertical-slash together, as the kernels ask.
int order_of(const kernels::HeadGroup& group) {
  if (group.rule == kernels::PageRule::kSlash) return 1;
  return group.window == kEverything ? 0 : group.limited ? 3 : 2;
}

// MInference's patterns choose for each head by its own queries.
bool joinable(const HeadPlan& plan) { return plan.pattern != Pattern::kVerticalSlash && plan.pattern != Pattern::kBlockSparse; }

}  // namespace

HeadGroups group_heads(std::span<const HeadPlan> plans, int64_t kv_heads, int64_t tokens) {
  HeadGroups out;
  const int64_t heads = static_cast<int64_t>(plans.size()), together = heads / kv_heads;
  for (int64_t h = 0; h < heads;) {
    int64_t end = h + 1;
    while (end % together != 0 && joinable(plans[static_cast<size_t>(h)]) && plans[static_cast<size_t>(end)] == plans[static_cast<size_t>(h)]) ++end;
    kernels::HeadGroup group = group_of(plans[static_cast<size_t>(h)]);
    group.first_head = static_cast<int32_t>(h);
    group.heads = static_cast<int32_t>(end - h);
    group.kv_head = static_cast<int32_t>(h / together);
    out.groups.push_back(group);
    h = end;
  }
  std::stable_sort(out.groups.begin(), out.groups.end(), [](const auto& a, const auto& b) { return order_of(a) < order_of(b); });
  for (kernels::HeadGroup& group : out.groups) {
    if (group.rule == kernels::PageRule::kSlash && out.slash_groups++ == 0) out.slash_group = &group - out.groups.data();
    if (group.rule == kernels::PageRule::kBlocks) ++out.block_groups;
    group.first_tile = static_cast<int32_t>(out.tiles);
    out.tiles += kernels::sparse_tiles(tokens, group.heads);
  }
  return out;
}

}  // namespace longview::cuda
