// The choice among measured plans against trying every combination.
#include "sparse/pattern_search.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "base/error.h"
#include "check.h"
#include "sparse/prefill_plan.h"

using namespace longview;

namespace {

struct Sum {
  double error = 0, density = 0;
};

Sum sum_of(const std::vector<PlanMeasurement>& all, size_t candidates, const std::vector<int32_t>& chosen) {
  Sum sum;
  for (size_t head = 0; head < chosen.size(); ++head) {
    sum.error += all[head * candidates + static_cast<size_t>(chosen[head])].error;
    sum.density += all[head * candidates + static_cast<size_t>(chosen[head])].density / static_cast<double>(chosen.size());
  }
  return sum;
}

// Heads whose error falls from rung to rung while density and time rise, dense the last one.
std::vector<PlanMeasurement> random_heads(uint32_t seed, size_t heads, size_t candidates) {
  std::mt19937 random(seed);
  std::vector<PlanMeasurement> all;
  for (size_t head = 0; head < heads; ++head) {
    const double hardness = std::exp2(static_cast<double>(random() % 12)) * 1e-4;
    for (size_t c = 0; c < candidates; ++c) {
      const double density = std::exp2(static_cast<double>(c) - static_cast<double>(candidates - 1)) * (1 + 0.1 * (random() % 8)) / (c + 1 == candidates ? 1 + 0.1 * 7 : 1.7);
      all.push_back({c + 1 == candidates ? 0 : hardness * std::exp2(-2.0 * static_cast<double>(c)), density, density * 0.01});
    }
  }
  return all;
}

}  // namespace

TEST("no combination within the chosen one's density errs less") {
  constexpr size_t kHeads = 5, kCandidates = 4;
  for (uint32_t seed = 0; seed < 50; ++seed) {
    const std::vector<PlanMeasurement> all = random_heads(seed, kHeads, kCandidates);
    for (const double density : {0.2, 0.4, 0.7}) {
      const std::vector<int32_t> chosen = choose_plans(all, kCandidates, density);
      const Sum got = sum_of(all, kCandidates, chosen);
      const Sum least = sum_of(all, kCandidates, std::vector<int32_t>(kHeads, 0));
      CHECK(got.density <= density || got.density <= least.density);
      for (size_t code = 0; code < 1024; ++code) {
        std::vector<int32_t> other;
        for (size_t head = 0, left = code; head < kHeads; ++head, left /= kCandidates) other.push_back(static_cast<int32_t>(left % kCandidates));
        const Sum sum = sum_of(all, kCandidates, other);
        if (sum.density < got.density - 1e-12 && sum.error < got.error - 1e-15) check::fail(__FILE__, __LINE__, "seed " + std::to_string(seed) + ": a better combination is " + std::to_string(code));
      }
    }
  }
}

TEST("a head that needs its keys keeps them, one that does not gives them up") {
  // Two heads, two plans: the first errs much when it is sparse.
  const std::vector<PlanMeasurement> all = {{0.5, 0.1, 1}, {0, 1, 10}, {0.001, 0.1, 1}, {0, 1, 10}};
  CHECK(choose_plans(all, 2, 1) == (std::vector<int32_t>{1, 1}));
  CHECK(choose_plans(all, 2, 0.6) == (std::vector<int32_t>{1, 0}));
  CHECK(choose_plans(all, 2, 0.1) == (std::vector<int32_t>{0, 0}));
  CHECK(choose_plans(all, 2, 0.01) == (std::vector<int32_t>{0, 0}));  // cannot be had: the sparsest
  const std::vector<PlanMeasurement> other = {{0, 1, 10}, {0.5, 0.1, 1}, {0.001, 0.1, 1}, {0, 1, 10}};
  CHECK(choose_plans(other, 2, 0.01) == (std::vector<int32_t>{1, 0}));
}

TEST("time counts, not keys alone") {
  // Both plans of the first head visit as much, the second one in less time.
  const std::vector<PlanMeasurement> all = {{0.1, 0.1, 5}, {0.1001, 0.1, 1}, {0, 1, 10}, {0.2, 0.1, 1}, {0.2, 0.1, 2}, {0, 1, 10}};
  CHECK(choose_plans(all, 3, 0.1) == (std::vector<int32_t>{1, 0}));
}

TEST("what time would make dense is sparse where the density asks for it") {
  const std::vector<PlanMeasurement> all = {{0.5, 0.5, 3}, {0, 1, 1}};
  CHECK(choose_plans(all, 2, 0.6) == (std::vector<int32_t>{0}));
}

TEST("as many heads are dense as the density allows, however close together and whatever the size of their errors") {
  // Of every two heads the second one needs its keys by a thousandth more.
  constexpr int32_t kHeads = 100;
  for (const double size : {0x1p-50, 1.0, 0x1p50}) {
    std::vector<PlanMeasurement> all;
    for (int32_t head = 0; head < kHeads; ++head) {
      all.push_back({size * std::pow(1.001, head), 0, 1});
      all.push_back({0, 1, 2});
    }
    for (const int32_t dense : {1, 37, 99}) {
      const std::vector<int32_t> chosen = choose_plans(all, 2, (dense + 0.5) / kHeads);
      for (int32_t head = 0; head < kHeads; ++head) CHECK(chosen[static_cast<size_t>(head)] == (head >= kHeads - dense));
    }
  }
}

TEST("of plans that cost the same the first is taken") {
  const std::vector<PlanMeasurement> same(6, {0.1, 0.1, 1});
  CHECK(choose_plans(same, 3, 1) == (std::vector<int32_t>{0, 0}));
  // Where the density forbids nothing, errors alone count: times differ from run to run.
  CHECK(choose_plans(std::vector<PlanMeasurement>{{0, 1, 10}, {0, 0.5, 1}}, 2, 1) == (std::vector<int32_t>{0}));
}

TEST("measurements that are none") {
  const std::vector<PlanMeasurement> five(5);
  CHECK_THROWS(choose_plans(five, 2, 0.5), kInvalidArgument);
  CHECK_THROWS(choose_plans(five, 0, 0.5), kInvalidArgument);
  CHECK_THROWS(choose_plans({}, 2, 0.5), kInvalidArgument);
}

TEST("the adaptive candidates go from window and means to dense, the un-calibrated plans among them") {
  const std::vector<HeadPlan> plans = adaptive_candidates();
  for (const PrefillTarget target : {PrefillTarget::kFast, PrefillTarget::kBalanced})
    for (const char* device : {"cpu", "cuda"})
      for (const bool late : {false, true}) CHECK(std::find(plans.begin(), plans.end(), uncalibrated_plan({PrefillMode::kAdaptive, target}, device, late)) != plans.end());
  for (const int32_t window : {default_plan(Pattern::kAdaptive).window, 896}) {
    float last = 3;
    for (const HeadPlan& plan : plans) {
      if (plan.pattern != Pattern::kAdaptive || plan.window != window) continue;
      CHECK(plan.threshold < last && (last <= 2 || plan.threshold == 2));
      last = plan.threshold;
    }
    CHECK(last < 0.01f);
  }
  CHECK(plans.back() == default_plan(Pattern::kDense));
}

TEST("MInference's candidates are of its three patterns, its plan for unknown heads among them") {
  const std::vector<HeadPlan> plans = minference_candidates();
  const auto count = [&](Pattern pattern) { return std::count_if(plans.begin(), plans.end(), [&](const HeadPlan& plan) { return plan.pattern == pattern; }); };
  CHECK(plans.size() == 7 && count(Pattern::kAShape) == 1 && count(Pattern::kVerticalSlash) == 5 && count(Pattern::kBlockSparse) == 1);
  for (const Pattern pattern : {Pattern::kAShape, Pattern::kVerticalSlash, Pattern::kBlockSparse}) CHECK(std::find(plans.begin(), plans.end(), default_plan(pattern)) != plans.end());
}

TEST_MAIN()
