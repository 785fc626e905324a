// MInference's patterns on the GPU against their reference in native/sparse, fed with exact weights in double. The GPU visits
// whole pages and may break near ties in another way: what it visits must lie between the choices of a slightly smaller and of a
// slightly larger budget.
#include "kernels/sparse_case.h"
#include "sparse/block_sparse.h"
#include "sparse/vertical_slash.h"

using namespace longview;
using namespace sparse_case;

namespace {

using Pages = std::vector<char>;  // [words * 32]

// `behind`: keys behind a range that count too.
void add_pages(const sparse::KeySet& keys, int64_t behind, Pages& pages) {
  for (const sparse::KeyRange& range : keys.ranges)
    for (int64_t page = range.begin / kPageTokens; page <= (range.end + behind - 1) / kPageTokens && page < static_cast<int64_t>(pages.size()); ++page) pages[static_cast<size_t>(page)] = 1;
  for (const int32_t column : keys.columns) pages[static_cast<size_t>(column / kPageTokens)] = 1;
}

// Softmax weights of token t's keys, zeros behind them.
std::vector<float> weights(const Context& c, int64_t t, int64_t h) {
  const int64_t end = c.shape().first + c.shape().tokens, seen = c.shape().first + t + 1;
  std::vector<double> p;
  for (int64_t key = 0; key < seen; ++key) p.push_back(c.score(t, h, key));
  const double highest = *std::max_element(p.begin(), p.end());
  double sum = 0;
  for (double& x : p) sum += x = std::exp(x - highest);
  std::vector<float> out(static_cast<size_t>(end), 0.0f);
  for (size_t i = 0; i < p.size(); ++i) out[i] = static_cast<float>(p[i] / sum);
  return out;
}

int32_t scaled(int32_t budget, double by) { return static_cast<int32_t>(std::lround(budget * by)); }

// Per tile of the head, what a budget times `by` visits of the pages before the tile.
std::vector<Pages> reference(const Context& c, const HeadGroup& g, double by) {
  const Shape& s = c.shape();
  HeadPlan plan;
  plan.columns = scaled(g.columns, by);
  plan.diagonals = scaled(g.diagonals, by);
  plan.blocks = g.blocks + (by < 1 ? -1 : by > 1 ? 1 : 0);
  const int64_t rows = std::min<int64_t>(64, s.tokens), end = s.first + s.tokens;
  sparse::VerticalSlashIndex index;
  if (g.rule == PageRule::kSlash) {
    std::vector<float> row_weights;
    index = sparse::vertical_slash_index(plan, rows, end, s.first > 0, [&](int64_t row) {
      row_weights = weights(c, s.tokens - rows + row, g.first_head);
      return std::span<const float>(row_weights);
    });
  }
  std::vector<Pages> out;
  for (int64_t first = 0; first < s.tokens; first += 64) {
    if (first % kPageTokens == 0) out.emplace_back(static_cast<size_t>(c.words() * 32), 0);
    if (g.rule == PageRule::kSlash) {
      add_pages(sparse::vertical_slash_keys(index, s.first + first), by > 1 ? 63 : 0, out.back());  // the kernel rounds runs up
      continue;
    }
    const int64_t last = std::min(first + 64, s.tokens), blocks = (s.first + first) / 64;
    std::vector<float> scores(static_cast<size_t>(blocks));
    for (int64_t i = 0; i < s.d; ++i) {
      double query = 0;
      for (int64_t t = first; t < last; ++t) query += c.query(t, g.first_head, i) / static_cast<double>(last - first);
      for (int64_t b = 0; b < blocks; ++b) {
        double key = 0;
        for (int64_t k = b * 64; k < (b + 1) * 64; ++k) key += c.key(g.first_head, k, i) / 64;
        scores[static_cast<size_t>(b)] += static_cast<float>(query * key);
      }
    }
    add_pages(sparse::block_sparse_keys(plan, s.first + last, scores), 0, out.back());
  }
  return out;
}

struct Tally {
  int64_t visited = 0, passed_over = 0;
};

void check_choice(const Context& c, Tally& tally) {
  GPU(sparse_index(c.args(), gpu::stream()));
  const std::vector<uint32_t> bits = c.bits();
  int64_t missing = 0, needless = 0;
  for (const HeadGroup& g : c.groups()) {
    if (g.rule != PageRule::kSlash && g.rule != PageRule::kBlocks) continue;
    const std::vector<Pages> least = reference(c, g, 0.98), most = reference(c, g, 1.02);
    for (size_t i = 0; i < least.size(); ++i) {
      const int64_t first = static_cast<int64_t>(i) * kSparseTileRows, tile = c.tile_of(g, first), whole = (c.shape().first + first + 1) / kPageTokens;
      for (int64_t page = 0; page < whole; ++page) {
        const bool set = c.bit(bits, tile, page);
        missing += !set && least[i][static_cast<size_t>(page)];
        // A column that a diagonal reaches is marked by its page as well, so that it is visited in the tile's other half too.
        needless += set && !most[i][static_cast<size_t>(page)];
        ++(set ? tally.visited : tally.passed_over);
      }
    }
  }
  CHECK(missing == 0);
  CHECK(needless == 0);
}

const std::vector<Shape> kShapes = {{300, 4000, 6, 3, 64}, {300, 4095, 6, 3, 64}, {700, 9001, 4, 2, 128}, {1500, 0, 4, 4, 64}, {40, 7000, 4, 1, 128}, {1, 3000, 2, 1, 128}, {300, 4095, 6, 1, 256}, {700, 9001, 4, 2, 256}, {40, 7000, 4, 1, 256}};

std::vector<HeadGroup> one_each(const Shape& s, const HeadGroup& plan) { return std::vector<HeadGroup>(static_cast<size_t>(s.heads), plan); }

}  // namespace

TEST("vertical-slash visits what the reference chooses, in chunks of any size") {
  Tally tally;
  for (const int32_t architecture : {0, 80})
    for (const Shape& s : kShapes) check_choice(Context(s, one_each(s, slash(20, 300)), Data::kPlain, architecture), tally);
  std::printf("  %d pages visited, %d passed over\n", int(tally.visited), int(tally.passed_over));
  CHECK(tally.visited > 100 && tally.passed_over > 100);
}

TEST("block-sparse visits what the reference chooses, in chunks of any size") {
  Tally tally;
  for (const int32_t architecture : {0, 80})
    for (const Shape& s : kShapes) check_choice(Context(s, one_each(s, blocks(12)), Data::kPlain, architecture), tally);
  std::printf("  %d pages visited, %d passed over\n", int(tally.visited), int(tally.passed_over));
  CHECK(tally.visited > 100 && tally.passed_over > 100);
}

TEST("more KV heads than have their keys pooled at a time") {
  for (const Shape& s : {Shape{64, 70000, 8, 8, 128}, Shape{64, 70000, 8, 4, 256}}) {
    CHECK(kernels::pool_batch((s.first + s.tokens + kPageTokens - 1) / kPageTokens, s.d, s.kv_heads) < s.kv_heads);
    std::vector<HeadGroup> plans = one_each(s, blocks(12));
    plans[2] = slash(20, 300);
    Context c(s, plans);
    for (const int32_t architecture : {0, 80}) {
      Tally tally;
      c.plan(plans, architecture);
      check_choice(c, tally);
      CHECK(tally.visited > 0 && tally.passed_over > 0);
    }
  }
}

TEST("budgets larger than the context, and of nothing") {
  Tally tally;
  for (const int32_t architecture : {0, 80}) {
    // The second begins with the last token of a page.
    for (const Shape& s : {Shape{300, 2000, 6, 2, 64}, Shape{129, 4095, 6, 2, 64}})
      check_choice(Context(s, {slash(1 << 30, 0), slash(0, 1 << 30), slash(0, 0), blocks(1 << 30), blocks(0), blocks(3)}, Data::kPlain, architecture), tally);
  }
  CHECK(tally.visited > 0 && tally.passed_over > 0);
}

TEST_MAIN()
