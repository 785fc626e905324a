// Plans of heads as groups of tiles.
#include "cuda/head_groups.h"

#include "check.h"

using namespace longview;

namespace {

HeadPlan adaptive(float threshold) {
  HeadPlan plan = default_plan(Pattern::kAdaptive);
  plan.threshold = threshold;
  return plan;
}

}  // namespace

TEST("equal plans of a KV head share tiles, across KV heads they do not") {
  const std::vector<HeadPlan> plans(8, adaptive(0.01f));
  const cuda::HeadGroups groups = cuda::group_heads(plans, 2, 1000);
  CHECK(groups.groups.size() == 2);
  CHECK(groups.tiles == 2 * 32);
  for (size_t i = 0; i < groups.groups.size(); ++i) {
    CHECK(groups.groups[i].heads == 4 && groups.groups[i].first_head == static_cast<int32_t>(4 * i) && groups.groups[i].kv_head == static_cast<int32_t>(i));
    CHECK(groups.groups[i].first_tile == static_cast<int32_t>(32 * i));
    CHECK(groups.groups[i].means == 1 && groups.groups[i].sink == plans[0].sink && groups.groups[i].window == plans[0].window);
  }
}

TEST("the index of 32,768 tokens at the end of a million takes at most 64 MiB where all heads are alike") {
  constexpr int64_t kTokens = 32768, kLength = int64_t{1} << 20, kMost = int64_t{64} << 20;
  struct Heads {
    int64_t count, kv, d;
    kernels::PageFormat format;
  };
  for (const HeadPlan& plan : {adaptive(0.01f), default_plan(Pattern::kAShape), default_plan(Pattern::kVerticalSlash), default_plan(Pattern::kBlockSparse)})
    for (const Heads& heads : {Heads{32, 8, 128, kernels::PageFormat::kBFloat16}, Heads{32, 8, 128, kernels::PageFormat::kE4M3}, Heads{24, 4, 256, kernels::PageFormat::kBFloat16}, Heads{16, 2, 256, kernels::PageFormat::kBFloat16}}) {
      const cuda::HeadGroups groups = cuda::group_heads(std::vector<HeadPlan>(static_cast<size_t>(heads.count), plan), heads.kv, kTokens);
      kernels::SparseArgs args{};
      args.kv = {nullptr, heads.kv, heads.d, 0, 32, heads.format};
      args.tokens = kTokens;
      args.heads = heads.count;
      args.first_position = kLength - kTokens;
      args.tiles = groups.tiles;
      args.group_count = static_cast<int64_t>(groups.groups.size());
      args.slash_groups = groups.slash_groups;
      args.block_groups = groups.block_groups;
      const int64_t bytes = kernels::sparse_layout(args).bytes;
      std::printf("  %s, %d heads of %d: %.1f MiB\n", name(plan.pattern), static_cast<int>(heads.count), static_cast<int>(heads.d), static_cast<double>(bytes) / (1 << 20));
      CHECK(bytes <= kMost);
    }
}

TEST("heads that differ stand alone, the dense ones first, and every head is there once") {
  HeadPlan window = default_plan(Pattern::kAShape), everything = window;
  everything.window = 2000000000;
  const std::vector<HeadPlan> plans = {adaptive(0.01f), adaptive(0.02f), window, HeadPlan{}, everything, window};
  const cuda::HeadGroups groups = cuda::group_heads(plans, 2, 300);
  std::vector<int> held(plans.size(), 0);
  int64_t tiles = 0;
  for (const kernels::HeadGroup& group : groups.groups) {
    CHECK(group.first_tile == tiles);
    tiles += kernels::sparse_tiles(300, group.heads);
    CHECK(group.kv_head == group.first_head / 3);
    for (int32_t h = group.first_head; h < group.first_head + group.heads; ++h) ++held[static_cast<size_t>(h)];
  }
  CHECK(tiles == groups.tiles);
  for (const int count : held) CHECK(count == 1);
  CHECK(groups.groups.front().first_head == 3);  // dense
  CHECK(groups.groups.back().limited == 1);
}

TEST("MInference's heads choose each for itself, vertical-slash heads lie together") {
  const HeadPlan slash = default_plan(Pattern::kVerticalSlash), blocks = default_plan(Pattern::kBlockSparse);
  const cuda::HeadGroups groups = cuda::group_heads(std::vector<HeadPlan>{slash, slash, blocks, blocks, adaptive(0.01f), slash, HeadPlan{}, default_plan(Pattern::kAShape)}, 2, 300);
  CHECK(groups.groups.size() == 8);
  CHECK(groups.slash_group == 1 && groups.slash_groups == 3 && groups.block_groups == 2);
  for (int64_t i = 0; i < groups.slash_groups; ++i) {
    const kernels::HeadGroup& group = groups.groups[static_cast<size_t>(groups.slash_group + i)];
    CHECK(group.rule == kernels::PageRule::kSlash && group.heads == 1);
    CHECK(group.columns == slash.columns && group.diagonals == slash.diagonals && group.window == 0);
  }
}

TEST("budgets of any size do not overflow") {
  HeadPlan plan = default_plan(Pattern::kAShape);
  plan.sink = plan.window = 2147483647;
  CHECK(cuda::group_heads(std::vector<HeadPlan>{plan}, 1, 10).groups[0].limited == 0);
  plan.sink = -5;
  plan.window = -5;
  const kernels::HeadGroup least = cuda::group_heads(std::vector<HeadPlan>{plan}, 1, 10).groups[0];
  CHECK(least.sink == 0 && least.window == 1 && least.limited == 1);
}

TEST_MAIN()
