#include "sparse/pattern_search.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace longview {
namespace {

// Of heads that look near: about as many keys as a_shape has, and the means of the others.
constexpr int32_t kWideWindow = 896;

// Candidates that cost the same are taken in order, so that the same measurements give the same plans everywhere.
std::vector<int32_t> cheapest(std::span<const PlanMeasurement> measurements, size_t candidates, double price) {
  std::vector<int32_t> chosen(measurements.size() / candidates, 0);
  for (size_t head = 0; head < chosen.size(); ++head) {
    const auto cost = [&](size_t candidate) {
      const PlanMeasurement& m = measurements[head * candidates + candidate];
      return m.error + price * m.seconds;
    };
    for (size_t candidate = 1; candidate < candidates; ++candidate)
      if (cost(candidate) < cost(static_cast<size_t>(chosen[head]))) chosen[head] = static_cast<int32_t>(candidate);
  }
  return chosen;
}

double mean_density(std::span<const PlanMeasurement> measurements, size_t candidates, std::span<const int32_t> chosen) {
  double sum = 0;
  for (size_t head = 0; head < chosen.size(); ++head) sum += measurements[head * candidates + static_cast<size_t>(chosen[head])].density;
  return sum / static_cast<double>(chosen.size());
}

}  // namespace

std::vector<HeadPlan> adaptive_candidates() {
  std::vector<HeadPlan> plans;
  // 2: window and means only, as no block holds more than all.
  for (const float threshold : {2.0f, 0.01f, kGpuShares.fast, kGpuShares.balanced}) {
    HeadPlan& plan = plans.emplace_back(default_plan(Pattern::kAdaptive));
    plan.window = kWideWindow;
    plan.threshold = threshold;
  }
  for (const float threshold : {2.0f, kLateShare, 0.01f, kGpuShares.fast, kCpuShares.fast, kGpuShares.balanced, kCpuShares.balanced, 0.0003f, 0.0001f}) plans.emplace_back(default_plan(Pattern::kAdaptive)).threshold = threshold;
  plans.push_back(default_plan(Pattern::kDense));
  return plans;
}

std::vector<HeadPlan> minference_candidates() {
  std::vector<HeadPlan> plans = {default_plan(Pattern::kAShape), default_plan(Pattern::kBlockSparse)};
  struct Budgets {
    int32_t columns, diagonals;
  };
  for (const auto [columns, diagonals] : {Budgets{30, 800}, Budgets{100, 750}, Budgets{500, 700}, Budgets{1000, 6096}, Budgets{3500, 100}}) {
    HeadPlan& plan = plans.emplace_back(default_plan(Pattern::kVerticalSlash));
    plan.columns = columns;
    plan.diagonals = diagonals;
  }
  return plans;
}

std::vector<int32_t> choose_plans(std::span<const PlanMeasurement> measurements, int64_t candidates, double density) {
  LONGVIEW_CHECK(candidates > 0 && !measurements.empty() && measurements.size() % static_cast<size_t>(candidates) == 0, kInvalidArgument,
                 "%zu measurements are not those of %lld plans for each head.", measurements.size(), static_cast<long long>(candidates));
  const auto count = static_cast<size_t>(candidates);
  const auto fits = [&](std::span<const int32_t> chosen) { return mean_density(measurements, count, chosen) <= density; };
  std::vector<int32_t> best = cheapest(measurements, count, 0);
  if (fits(best)) return best;
  // The fastest plan may be the dense one, where there is little to leave out.
  for (size_t head = 0; head < best.size(); ++head) {
    const auto plans = measurements.subspan(head * count, count);
    best[head] = static_cast<int32_t>(std::min_element(plans.begin(), plans.end(), [](const PlanMeasurement& a, const PlanMeasurement& b) { return a.density < b.density; }) - plans.begin());
  }
  // Errors and seconds are numbers of any size: the price is sought among 2^-60 .. 2^60, by its logarithm.
  double low = -60, high = 60;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    const std::vector<int32_t> chosen = cheapest(measurements, count, std::exp2(middle));
    if (fits(chosen)) {
      best = chosen;
      high = middle;
    } else {
      low = middle;
    }
  }
  return best;
}

}  // namespace longview
