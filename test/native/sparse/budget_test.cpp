// What follows from the probe rows: heads under the target get more, and in the end all; the others keep their plans.
#include "sparse/budget.h"

#include <array>

#include "check.h"

using namespace longview;

namespace {

constexpr std::array kTarget = {0.7f};

HeadCoverage probed(double mass, int64_t rows) { return {10, 100, mass * static_cast<double>(rows), rows}; }

}  // namespace

TEST("a head under the target is raised step by step, and then dense; its neighbour is left alone") {
  Budget budget;
  const std::array<HeadPlan, 2> plans = {default_plan(Pattern::kAdaptive), default_plan(Pattern::kVerticalSlash)};
  float threshold = plans[0].threshold;
  for (int step = 1; step <= 3; ++step) {
    budget.update(std::array{probed(0.2, 16), probed(0.9, 16)}, std::array{0.7f, 0.7f});
    const std::vector<HeadPlan> raised = budget.apply(plans);
    if (step < 3) {
      threshold /= 4;
      CHECK(raised[0].pattern == Pattern::kAdaptive && raised[0].threshold == threshold);
    } else {
      CHECK(raised[0] == HeadPlan{});
    }
    CHECK(raised[1] == plans[1]);
  }
  CHECK(budget.raised() == 1 && budget.dense() == 1);
}

TEST("a few rows say nothing; many do, over several chunks") {
  Budget budget;
  for (int chunk = 0; chunk < 3; ++chunk) {
    budget.update(std::array{probed(0, 4)}, kTarget);
    CHECK(budget.raised() == 0);
  }
  budget.update(std::array{probed(0, 4)}, kTarget);
  CHECK(budget.raised() == 1);
}

TEST("a head that was good for long is raised soon after it turns bad") {
  Budget budget;
  for (int chunk = 0; chunk < 1000; ++chunk) budget.update(std::array{probed(1, 4)}, kTarget);
  CHECK(budget.raised() == 0);
  int chunks = 0;
  while (budget.raised() == 0 && chunks < 1000) {
    budget.update(std::array{probed(0.1, 4)}, kTarget);
    ++chunks;
  }
  CHECK(chunks == 7);  // 28 rows, which weigh as much as a third of the 64 of before
}

TEST("each head has a target of its own, and none is raised without one") {
  Budget budget;
  budget.update(std::array{probed(0.4, 16), probed(0.4, 16)}, std::array{0.3f, 0.7f});
  const std::array<HeadPlan, 2> plans = {default_plan(Pattern::kAdaptive), default_plan(Pattern::kAdaptive)};
  CHECK(budget.apply(plans)[0] == plans[0] && budget.apply(plans)[1] != plans[1]);
  Budget at_it;
  at_it.update(std::array{probed(0.75, 16)}, std::array{0.75f});  // what is asked for is enough
  CHECK(at_it.raised() == 0);
  Budget free;
  for (int chunk = 0; chunk < 10; ++chunk) free.update(std::array{probed(0, 16)}, {});
  CHECK(free.raised() == 0);
}

TEST("budgets of every pattern grow, and do not run over") {
  Budget budget;
  HeadPlan huge = default_plan(Pattern::kVerticalSlash);
  huge.columns = huge.diagonals = INT32_MAX - 1;
  const std::array<HeadPlan, 5> plans = {default_plan(Pattern::kAShape), huge, default_plan(Pattern::kBlockSparse), HeadPlan{}, default_plan(Pattern::kAdaptive)};
  budget.update(std::array{probed(0, 16), probed(0, 16), probed(0, 16), probed(1, 16), probed(0, 16)}, std::array{0.7f, 0.7f, 0.7f, 0.7f, 0.7f});
  const std::vector<HeadPlan> raised = budget.apply(plans);
  CHECK(raised[0].window == 4 * plans[0].window);
  CHECK(raised[1].columns == INT32_MAX && raised[1].diagonals == INT32_MAX);
  CHECK(raised[2].blocks == 4 * plans[2].blocks);
  CHECK(raised[3] == HeadPlan{});
  // An adaptive head's window is no budget: what it may miss lies anywhere.
  CHECK(raised[4].threshold == plans[4].threshold / 4 && raised[4].window == plans[4].window && raised[4].sink == plans[4].sink);
  budget.update(std::array{probed(0, 16)}, kTarget);
  CHECK(budget.apply(plans)[0].window == 16 * plans[0].window);
}

TEST_MAIN()
