#include "sparse/budget.h"

#include <algorithm>

namespace longview {
namespace {

constexpr int64_t kLeastProbes = 16;  // fewer rows say nothing
constexpr int64_t kRecentProbes = 64;  // older rows fade, so that a head that was good for long is still seen turning bad
constexpr uint8_t kDenseAfter = 3;    // raises; each is worth a factor of four

HeadPlan raise(HeadPlan plan, uint8_t times) {
  if (times >= kDenseAfter) return HeadPlan{};
  const auto more = [&](int32_t budget) { return static_cast<int32_t>(std::min<int64_t>(static_cast<int64_t>(budget) << (2 * times), INT32_MAX)); };
  plan.threshold /= static_cast<float>(1 << (2 * times));
  if (plan.pattern == Pattern::kAShape) plan.window = more(plan.window);
  plan.columns = more(plan.columns);
  plan.diagonals = more(plan.diagonals);
  plan.blocks = more(plan.blocks);
  return plan;
}

}  // namespace

void Budget::update(std::span<const HeadCoverage> chunk, std::span<const float> target_mass) {
  heads_.resize(std::max(heads_.size(), chunk.size()));
  for (size_t i = 0; i < std::min(chunk.size(), target_mass.size()); ++i) {
    Head& head = heads_[i];
    head.covered += chunk[i].covered;
    head.probes += chunk[i].probes;
    if (head.probes > kRecentProbes) {
      head.covered *= static_cast<double>(kRecentProbes) / static_cast<double>(head.probes);
      head.probes = kRecentProbes;
    }
    if (head.raised >= kDenseAfter || head.probes < kLeastProbes || head.covered >= static_cast<double>(target_mass[i]) * static_cast<double>(head.probes)) continue;
    head = {0, 0, static_cast<uint8_t>(head.raised + 1)};
  }
}

std::vector<HeadPlan> Budget::apply(std::span<const HeadPlan> plans) const {
  std::vector<HeadPlan> raised(plans.begin(), plans.end());
  for (size_t i = 0; i < std::min(raised.size(), heads_.size()); ++i)
    if (heads_[i].raised > 0) raised[i] = raise(raised[i], heads_[i].raised);
  return raised;
}

int64_t Budget::raised() const {
  return std::count_if(heads_.begin(), heads_.end(), [](const Head& head) { return head.raised > 0; });
}

int64_t Budget::dense() const {
  return std::count_if(heads_.begin(), heads_.end(), [](const Head& head) { return head.raised >= kDenseAfter; });
}

}  // namespace longview
