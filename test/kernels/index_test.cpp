// The sparse index against double: which pages each tile visits, what is counted, and the exact mass that probes measure.
#include "kernels/sparse_case.h"

using namespace longview;
using namespace sparse_case;

namespace {

struct Tally {
  int64_t kept = 0, dropped = 0, close = 0;
};

// Mass of each candidate of a tile whose first row is `first_row`, as kernels/api/sparse.h defines it.
std::vector<double> masses(const Context& c, const HeadGroup& g, int64_t first_row, int64_t begin, int64_t end) {
  const Shape& s = c.shape();
  const int64_t rows = std::min(kSparseTileRows, s.tokens * g.heads - first_row);
  std::vector<double> mass(static_cast<size_t>(end - begin), 0);
  for (int64_t row = first_row; row < first_row + rows; ++row) {
    const int64_t t = row / g.heads, h = g.first_head + row % g.heads;
    std::vector<double> scores;  // of all means
    const int64_t means = c.weighed_means();
    for (int64_t page = 0; page < (s.first + first_row / g.heads + 1) / kPageTokens; ++page)
      for (int64_t i = 0; i < means; ++i) scores.push_back(c.weighed_score(t, h, page, i));
    const double highest = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double& x : scores) sum += x = std::exp(x - highest);
    for (int64_t i = begin * means; i < end * means; ++i) mass[static_cast<size_t>(i / means - begin)] += scores[static_cast<size_t>(i)] / sum / static_cast<double>(rows);
  }
  return mass;
}

// The least mass that is kept.
double cut_of(const HeadGroup& g, std::vector<double> mass) {
  if (g.rule == PageRule::kShare) return g.threshold;
  std::sort(mass.begin(), mass.end());
  if (g.rule == PageRule::kRelative) return g.threshold * mass.back();
  double left = 0;
  for (const double x : mass)
    if ((left += x) > static_cast<double>(g.threshold)) return x;
  return INFINITY;
}

void check_index(const Context& c, int64_t stride, Tally& tally) {
  GPU(sparse_index(c.args(), gpu::stream()));
  const std::vector<uint32_t> bits = c.bits();
  const Shape& s = c.shape();
  std::vector<double> visited(static_cast<size_t>(s.heads), 0), causal(visited);
  int64_t wrong = 0;
  for (const HeadGroup& g : c.groups())
    for (int64_t first_row = 0; first_row < s.tokens * g.heads; first_row += kSparseTileRows) {
      const int64_t first = s.first + first_row / g.heads, end_row = std::min(first_row + kSparseTileRows, s.tokens * g.heads);
      const int64_t last = s.first + (end_row - 1) / g.heads, tile = c.tile_of(g, first_row);
      const auto [begin, end] = c.candidates(g, first);
      int64_t means = 0;
      for (int64_t page = 0; page < c.words() * 32; ++page) {
        const bool set = c.bit(bits, tile, page), candidate = page >= begin && page < end;
        if (!candidate || g.rule == PageRule::kNone) wrong += set != (!candidate && page <= last / kPageTokens);
        means += candidate && !set && g.means;
      }
      for (int64_t row = first_row; row < end_row; ++row) {
        const int64_t position = s.first + row / g.heads, head = g.first_head + row % g.heads;
        int64_t seen = 0;
        for (int64_t page = 0; page <= position / kPageTokens; ++page)
          if (c.bit(bits, tile, page)) seen += std::min(kPageTokens, position + 1 - page * kPageTokens);
        if (g.limited) seen = std::min<int64_t>(position + 1, g.sink + g.window);
        visited[static_cast<size_t>(head)] += static_cast<double>(seen + means);
        causal[static_cast<size_t>(head)] += static_cast<double>(position + 1);
      }
      if (begin == end || g.rule == PageRule::kNone || first_row / kSparseTileRows % stride != 0) continue;
      const std::vector<double> mass = masses(c, g, first_row, begin, end);
      const double cut = cut_of(g, mass);
      for (int64_t page = begin; page < end; ++page) {
        const double x = mass[static_cast<size_t>(page - begin)];
        const bool set = c.bit(bits, tile, page);
        if (std::fabs(x - cut) <= 1e-3 * cut) ++tally.close;
        else wrong += set != (x > cut);
        ++(set ? tally.kept : tally.dropped);
      }
    }
  CHECK(wrong == 0);
  const std::vector<kernels::HeadCounters> counters = c.counters();
  for (size_t h = 0; h < visited.size(); ++h) {
    CHECK_NEAR(counters[h].visited, visited[h], 0.5);
    CHECK_NEAR(counters[h].causal, causal[h], 0.5);
  }
}

void check_coverage(const Context& c, double off = 1e-4) {
  GPU(sparse_coverage(c.args(), gpu::stream()));
  const std::vector<uint32_t> bits = c.bits();
  const std::vector<kernels::HeadCounters> counters = c.counters();
  const Shape& s = c.shape();
  const int64_t probes = std::min(kernels::kProbeTokens, s.tokens);
  for (const HeadGroup& g : c.groups())
    for (int64_t h = g.first_head; h < g.first_head + g.heads; ++h) {
      double covered = 0;
      for (int64_t i = 0; i < probes; ++i) {
        const int64_t t = (2 * i + 1) * s.tokens / (2 * probes), position = s.first + t, tile = c.tile_of(g, t * g.heads + h - g.first_head);
        std::vector<double> scores;
        for (int64_t key = 0; key <= position; ++key) scores.push_back(c.score(t, h, key));
        const double highest = *std::max_element(scores.begin(), scores.end());
        double sum = 0, chosen = 0;
        for (int64_t key = 0; key <= position; ++key) {
          const double p = std::exp(scores[static_cast<size_t>(key)] - highest);
          sum += p;
          if (c.bit(bits, tile, key / kPageTokens) && (!g.limited || key < g.sink || key > position - g.window)) chosen += p;
        }
        covered += chosen / sum;
      }
      CHECK_NEAR(counters[static_cast<size_t>(h)].probes, static_cast<double>(probes), 0);
      CHECK_NEAR(counters[static_cast<size_t>(h)].covered / static_cast<double>(probes), covered / static_cast<double>(probes), off);
    }
}

std::vector<HeadGroup> plans_of(const Shape& s, const HeadGroup& plan) { return std::vector<HeadGroup>(static_cast<size_t>(s.kv_heads), plan); }

const std::vector<Shape> kShapes = {{1, 5000, 4, 1, 128}, {300, 4000, 9, 3, 64}, {700, 9001, 14, 2, 128}, {257, 20000, 4, 4, 64}, {2100, 0, 8, 2, 128}, {64, 40000, 7, 1, 64}, {1, 5000, 4, 1, 256}, {300, 4000, 12, 2, 256}, {700, 9001, 16, 2, 256}, {257, 20000, 12, 1, 256}};

}  // namespace

TEST("pages by share, by the largest and by mass left over, on all architectures' kernels") {
  Tally tally;
  for (const int32_t architecture : {0, 80})
    for (const Shape& s : kShapes)
      for (const HeadGroup& plan : {adaptive(PageRule::kShare, 0.004f), adaptive(PageRule::kRelative, 0.1f), adaptive(PageRule::kMass, 0.2f, false)}) {
        const Context c(s, plans_of(s, plan), Data::kPlain, architecture);
        check_index(c, 8, tally);
      }
  std::printf("  %d pages kept, %d dropped, %d too close to tell\n", int(tally.kept), int(tally.dropped), int(tally.close));
  CHECK(tally.kept > 100 && tally.dropped > 100 && tally.close < (tally.kept + tally.dropped) / 20);
}

TEST("long contexts, whose pages are weighed by estimated sums first") {
  Tally tally;
  for (const auto& [s, data] : {std::pair{Shape{64, 100000, 4, 1, 128}, Data::kPlain}, {Shape{40, 200000, 3, 1, 128}, Data::kPlain}, {Shape{100, 150000, 2, 1, 64}, Data::kPlain}, {Shape{100, 60000, 4, 2, 128}, Data::kPlain}, {Shape{64, 100000, 4, 1, 128}, Data::kOutliers}, {Shape{64, 100000, 6, 1, 256}, Data::kPlain}, {Shape{40, 70000, 12, 1, 256}, Data::kOutliers}}) {
    Context c(s, plans_of(s, adaptive(PageRule::kShare, 0.002f)), data);
    check_index(c, 1, tally);
    for (const HeadGroup& plan : {adaptive(PageRule::kRelative, 0.2f), adaptive(PageRule::kRelative, 0), adaptive(PageRule::kMass, 0.97f, false), adaptive(PageRule::kMass, 0.3f), adaptive(PageRule::kShare, 2)}) {
      c.plan(plans_of(s, plan));
      check_index(c, 1, tally);
    }
  }
  std::printf("  %d pages kept, %d dropped, %d too close to tell\n", int(tally.kept), int(tally.dropped), int(tally.close));
  CHECK(tally.kept > 1000 && tally.dropped > 1000 && tally.close < (tally.kept + tally.dropped) / 20);
}

TEST("four means of a page, to the last bits, also of e4m3 pages") {
  for (const PageFormat format : {PageFormat::kBFloat16, PageFormat::kE4M3}) {
    if (format == PageFormat::kE4M3 && gpu::properties().major != 9) continue;
    for (const Shape& s : {Shape{300, 8000, 9, 3, 64}, Shape{1, 6000, 4, 2, 128}, Shape{300, 8000, 12, 2, 256}}) {
      if (format == PageFormat::kE4M3 && s.d == 256) continue;
      const Context c(s, plans_of(s, adaptive(PageRule::kShare, 0.004f)), Data::kPlain, 0, format);
      Tally tally;
      check_index(c, 1, tally);
      CHECK(tally.kept > 0 && tally.dropped > 0);
      const std::vector<uint8_t> workspace = c.workspace();
      CHECK(c.weighed_means() == 4);
      double worst = 0;
      for (int64_t page = 0; page < (s.first + s.tokens) / kPageTokens; ++page)
        for (int64_t g = 0; g < s.kv_heads; ++g)
          for (int64_t i = 0; i < 4; ++i)
            for (int64_t d = 0; d < s.d; ++d) {
              const double wanted = c.weighed_mean(g, page, i, d);
              worst = std::max(worst, std::fabs(c.device_weighed_mean(workspace, g, page, i, d) - wanted) / std::max(std::fabs(wanted), 0.01));
            }
      CHECK(worst <= 0x1p-7);  // two that round to neighbours
    }
  }
}

TEST("scores of hundreds choose the same pages") {
  Tally tally;
  for (const int32_t architecture : {0, 80})
    for (const PageRule rule : {PageRule::kShare, PageRule::kRelative})
      for (const Shape& s : {Shape{500, 9000, 8, 2, 128}, Shape{500, 9000, 8, 2, 256}}) {
        const Context c(s, plans_of(s, adaptive(rule, 0.01f)), Data::kOutliers, architecture);
        check_index(c, 2, tally);
      }
  CHECK(tally.kept > 10 && tally.dropped > 10);
}

TEST("dense, A-shape and adaptive heads in one launch, and contexts shorter than the budgets") {
  Tally tally;
  for (const Shape& s : {Shape{300, 6000, 6, 2, 128}, Shape{300, 6000, 6, 2, 64}, Shape{200, 100, 6, 2, 128}, Shape{300, 6000, 6, 2, 256}})
    for (const int32_t architecture : {0, 80}) {
      const Context c(s, {dense(), a_shape(100, 800), adaptive(PageRule::kShare, 0.004f), a_shape(0, 1), adaptive(PageRule::kShare, 0), adaptive(PageRule::kMass, 0.3f)}, Data::kPlain, architecture);
      check_index(c, 1, tally);
    }
}

TEST("probes measure the mass of the visited pages") {
  Tally tally;
  for (const int32_t architecture : {0, 80})
    for (const Shape& s : {Shape{300, 4000, 6, 2, 128}, Shape{1, 9000, 4, 1, 64}, Shape{50, 3000, 14, 2, 64}, Shape{300, 4000, 24, 4, 256}, Shape{1, 9000, 12, 1, 256}, Shape{50, 3000, 16, 2, 256}}) {
      const Context c(s, plans_of(s, adaptive(PageRule::kShare, 0.01f)), Data::kPlain, architecture);
      check_index(c, 4, tally);
      check_coverage(c);
      const Context mixed(s, [&] {
        std::vector<HeadGroup> plans(static_cast<size_t>(s.heads), a_shape(100, 300));
        plans[0] = dense();
        return plans;
      }(), Data::kOutliers, architecture);
      check_index(mixed, 4, tally);
      check_coverage(mixed);
    }
}

TEST("probes over e4m3 pages, whose codes are multiplied") {
  if (gpu::properties().major != 9) SKIP("this takes compute capability 9.0");
  for (const Shape& s : {Shape{300, 4000, 6, 2, 128}, Shape{1, 9000, 4, 1, 64}, Shape{50, 3000, 14, 2, 64}, Shape{70, 1300, 6, 2, 128}}) {
    const Context c(s, plans_of(s, adaptive(PageRule::kShare, 0.01f)), Data::kPlain, 0, PageFormat::kE4M3);
    GPU(sparse_index(c.args(), gpu::stream()));
    check_coverage(c, 1e-3);  // the tensor cores keep some 14 bits of a score
    const Context limited(s, plans_of(s, a_shape(100, 300)), Data::kPlain, 0, PageFormat::kE4M3);
    GPU(sparse_index(limited.args(), gpu::stream()));
    check_coverage(limited, 1e-3);
  }
}

TEST("small, for compute-sanitizer") {
  Tally tally;
  for (const int32_t architecture : {0, 80})
    for (const int64_t d : {64, 128, 256}) {
      const Shape s{70, 1300, 6, 2, d};
      const Context c(s, {dense(), a_shape(100, 300), adaptive(PageRule::kMass, 0.2f), adaptive(PageRule::kShare, 0.02f), adaptive(PageRule::kRelative, 0.2f), dense()}, Data::kPlain, architecture);
      check_index(c, 1, tally);
      check_coverage(c);
    }
}

TEST("refusals") {
  const Shape s{10, 1000, 4, 2, 64};
  const Context c(s, plans_of(s, dense()));
  const auto refuses = [&](auto change) {
    kernels::SparseArgs args = c.args();
    change(args);
    for (auto launch : {gpu::library().sparse_index, gpu::library().sparse_attention, gpu::library().sparse_coverage, gpu::library().sparse_stand_ins}) CHECK(launch(args, gpu::stream()) < 0);
  };
  refuses([](auto& a) { a.kv.head_dim = 96; });
  refuses([](auto& a) {  // over copies in bf16 alone
    a.kv.head_dim = 256;
    a.kv.format = PageFormat::kE4M3;
  });
  for (const PageFormat format : {PageFormat::kQ8, PageFormat::kQ4}) refuses([&](auto& a) { a.kv.format = format; });
  refuses([](auto& a) { a.kv.layers = 0; });
  refuses([](auto& a) { a.heads = 5; });
  refuses([](auto& a) { a.tokens = 0; });
  refuses([](auto& a) { a.first_position = kernels::kMostSparsePages * kPageTokens; });
  refuses([](auto& a) { a.workspace = nullptr; });
  refuses([](auto& a) { a.q = static_cast<const char*>(a.q) + 2; });
  refuses([](auto& a) { a.group_count = 0; });
}

TEST_MAIN()
