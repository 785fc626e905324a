// Sparse attention on the CPU against references in double that share no code with it: what each pattern visits is decided
// anew from its definition, and the softmax is taken over that.
#include <array>
#include <numbers>
#include <set>

#include "check.h"
#include "sparse/adaptive.h"
#include "sparse/block_sparse.h"
#include "sparse/random_layer.h"
#include "sparse/vertical_slash.h"

using namespace random_layer;

namespace {

HeadPlan plan(Pattern pattern) { return default_plan(pattern); }
std::vector<HeadPlan> all(const Case& c, const HeadPlan& head) { return std::vector<HeadPlan>(static_cast<size_t>(c.heads()), head); }

// kv_heads, group, d, tokens before, tokens.
const std::vector<Case> kCases = {
    {1, 1, 64, 1500, 130}, {2, 3, 64, 1003, 77}, {1, 4, 128, 700, 64}, {1, 7, 96, 900, 33}, {2, 1, 64, 0, 500}, {1, 2, 64, 1291, 1},
};

// These and q8 ones, for what does not depend on means: q8 rounds means to bf16. The last has a ragged block of 32.
std::vector<Case> every_format() {
  std::vector<Case> cases = kCases;
  for (const auto& [kv_heads, group, d, before, tokens] : std::vector<std::array<int64_t, 5>>{{2, 3, 64, 503, 77}, {1, 4, 128, 391, 1}, {1, 2, 80, 300, 40}})
    for (const KvFormat format : {KvFormat::kQ8, KvFormat::kQ4}) cases.push_back({kv_heads, group, d, before, tokens, format, Precision::kFloat32, "", 2});
  return cases;
}

// What an adaptive row visits, from the definition: tiles of 32 positions of one head; behind the sink and before the window
// a block of 32 keys is visited where its weight in the softmax over all blocks before the tile, as a mean over the tile's rows,
// reaches the threshold. It weighs as keys with the scores' mean and, of each dim, the keys' mean variance, by 2^8.66 more at most.
// Half of that share is what it really holds of the attention of rows 64, 128, .. of each 512 of the chunk, or of the last of fewer, in blocks
// that they see whole. Blocks that are not visited weigh more than their mean keys by the root of what these rows find, e at most.
Visits adaptive_visits(const Layer& layer, const HeadPlan& head) {
  return [&layer, head](int64_t t, int64_t h) {
    const Case& c = layer.c();
    const int64_t tile = t / 32 * 32, rows = std::min<int64_t>(32, c.tokens - tile), first = c.before + tile;
    const int64_t begin = (head.sink + 2 * kBlock - 1) / (2 * kBlock) * 2, end = std::max(begin, std::max<int64_t>(first + 1 - head.window, 0) / kBlock);
    const auto whole = static_cast<size_t>(first / kBlock);
    std::vector<std::vector<double>> key_means(whole), value_means(whole);
    std::vector<double> spreads(whole);
    for (size_t b = 0; b < whole; ++b) {
      key_means[b].resize(static_cast<size_t>(c.d));
      value_means[b].resize(static_cast<size_t>(c.d));
      for (int64_t i = 0; i < c.d; ++i)
        for (int64_t j = 0; j < kBlock; ++j) {
          const auto at = static_cast<size_t>(((static_cast<int64_t>(b) * kBlock + j) * c.kv_heads + h / c.group) * c.d + i);
          key_means[b][static_cast<size_t>(i)] += static_cast<double>(layer.keys()[at]) / kBlock;
          value_means[b][static_cast<size_t>(i)] += static_cast<double>(layer.values()[at]) / kBlock;
        }
      for (int64_t i = 0; i < c.d; ++i)
        for (int64_t j = 0; j < kBlock; ++j) {
          const double off = static_cast<double>(layer.keys()[static_cast<size_t>(((static_cast<int64_t>(b) * kBlock + j) * c.kv_heads + h / c.group) * c.d + i)]) - key_means[b][static_cast<size_t>(i)];
          spreads[b] += off * off / static_cast<double>(kBlock * c.d);
        }
    }
    const auto mean_score = [&](int64_t token, size_t b) {
      double sum = 0;
      for (int64_t i = 0; i < c.d; ++i) sum += static_cast<double>(layer.queries()[static_cast<size_t>((token * c.heads() + h) * c.d + i)]) * key_means[b][static_cast<size_t>(i)];
      return sum / std::sqrt(static_cast<double>(c.d));
    };
    std::vector<double> mass(whole);
    for (int64_t token = tile; token < tile + rows; ++token) {
      double sum = 0, squared = 0;
      for (int64_t i = 0; i < c.d; ++i) squared += std::pow(static_cast<double>(layer.queries()[static_cast<size_t>((token * c.heads() + h) * c.d + i)]), 2) / static_cast<double>(c.d);
      std::vector<double> p(whole);
      for (size_t b = 0; b < whole; ++b) sum += p[b] = std::exp(mean_score(token, b) + std::min(squared * spreads[b] / 2, 8.66 * std::numbers::ln2));
      for (size_t b = 0; b < whole; ++b) mass[b] += p[b] / sum / static_cast<double>(rows);
    }
    const int64_t span = t / 512 * 512, last = std::min<int64_t>(512, c.tokens - span), stride = std::min<int64_t>(64, last), samples = last / stride;
    for (double& share : mass) share /= 2;
    std::vector<double> found(whole), of_means(whole);
    for (int64_t sample = 1; sample <= samples; ++sample) {
      const int64_t token = span + sample * stride - 1;
      std::vector<double> p;
      double sum = 0;
      for (const int64_t key : up_to(c.before + token)) sum += p.emplace_back(std::exp(layer.score(token, h, key)));
      for (size_t b = 0; b < std::min(p.size() / kBlock, whole); ++b) {
        found[b] += std::accumulate(p.begin() + static_cast<int64_t>(b) * kBlock, p.begin() + static_cast<int64_t>(b + 1) * kBlock, 0.0) / sum;
        of_means[b] += kBlock * std::exp(mean_score(token, b)) / sum;
      }
    }
    for (size_t b = 0; b < whole; ++b) mass[b] += found[b] / static_cast<double>(2 * samples);
    const auto gain = [&](size_t b) { return found[b] > 0 ? std::min(std::log(found[b] / of_means[b]) / 2, 1.0) : 0.0; };
    const auto visited_block = [&](int64_t b) { return b < begin || b >= end || mass[static_cast<size_t>(b)] >= static_cast<double>(head.threshold); };
    Visited visited;
    for (const int64_t key : up_to(c.before + t))
      if (visited_block(key / kBlock)) visited.keys.push_back(key);
    for (int64_t b = begin; b < end; ++b)
      if (!visited_block(b)) visited.means.push_back({mean_score(t, static_cast<size_t>(b)) + gain(static_cast<size_t>(b)), kBlock, value_means[static_cast<size_t>(b)], b});
    return visited;
  };
}

// Of a row in dense attention, the mass that lies where attention over `visited` puts it.
double covered(const Layer& layer, int64_t t, int64_t h, const Visited& visited) {
  std::vector<double> dense;
  double all = 0, kept = 0, sum = 0;
  for (const int64_t key : up_to(layer.c().before + t)) all += dense.emplace_back(std::exp(layer.score(t, h, key)));
  const auto weight = [](const Mean& mean) { return mean.length * std::exp(mean.score); };
  for (const int64_t key : visited.keys) kept += dense[static_cast<size_t>(key)];
  for (const Mean& mean : visited.means) kept += weight(mean);
  for (const int64_t key : visited.keys) sum += dense[static_cast<size_t>(key)] * std::min(1 / all, 1 / kept);
  for (const Mean& mean : visited.means) {
    const auto block = dense.begin() + mean.block * kBlock;
    sum += std::min(std::accumulate(block, block + kBlock, 0.0) / all, weight(mean) / kept);
  }
  return sum;
}

// What attend() has counted of each head, beside what follows from the definition: in every row what it visits, and in the last row of one tile
// in so many what that covers.
void check_coverage(Layer& layer, const Visits& visits, int64_t tile, int64_t every) {
  const Case& c = layer.c();
  const std::vector<HeadCoverage> counted = layer.coverage();
  for (int64_t h = 0; h < c.heads(); ++h) {
    const HeadCoverage& head = counted[static_cast<size_t>(h)];
    double visited = 0, mass = 0;
    int64_t probes = 0;
    for (int64_t t = 0; t < c.tokens; ++t) {
      const Visited row = visits(t, h);
      visited += static_cast<double>(row.keys.size() + row.means.size());
      if (t / tile % every != 0 || (t % tile != tile - 1 && t != c.tokens - 1)) continue;
      mass += covered(layer, t, h, row);
      ++probes;
    }
    CHECK_NEAR(head.visited, visited, 0.5);
    CHECK(head.probes == probes);
    CHECK_NEAR(head.covered, mass, 1e-4 * static_cast<double>(probes));
  }
}

}  // namespace

TEST("budgets larger than the context are dense attention") {
  for (const Case& c : every_format()) {
    Layer layer(c);
    const auto dense = layer.attend({});
    CHECK(worst_error(layer, dense, [&](int64_t t, int64_t) { return Visited{up_to(c.before + t), {}}; }) < 2e-5);
    HeadPlan everything[] = {plan(Pattern::kDense), plan(Pattern::kAShape), plan(Pattern::kVerticalSlash), plan(Pattern::kBlockSparse), plan(Pattern::kAdaptive)};
    everything[1].window = everything[2].columns = everything[2].diagonals = everything[3].blocks = 1 << 30;
    everything[4].threshold = 0;
    for (const HeadPlan& head : everything) {
      const auto out = layer.attend(all(c, head));
      double worst = 0;
      for (size_t i = 0; i < out.size(); ++i) worst = std::max(worst, static_cast<double>(std::fabs(out[i] - dense[i])));
      if (!(worst < 2e-5)) check::fail(__FILE__, __LINE__, std::string(name(head.pattern)) + " differs from dense by " + std::to_string(worst));
      for (const HeadCoverage& coverage : layer.coverage()) CHECK_NEAR(coverage.visited, coverage.causal, 1e-6 * coverage.causal);
    }
  }
}

TEST("a_shape: the first keys and a window, key by key") {
  for (const Case& c : every_format()) {
    Layer layer(c);
    HeadPlan head = plan(Pattern::kAShape);
    head.sink = 37;
    head.window = 211;
    const auto out = layer.attend(all(c, head));
    const auto visible = [&](int64_t t, int64_t) {
      std::vector<int64_t> keys = up_to(c.before + t);
      std::erase_if(keys, [&](int64_t key) { return key >= head.sink && c.before + t - key >= head.window; });
      return Visited{keys, {}};
    };
    CHECK(worst_error(layer, out, visible) < 2e-5);
    check_coverage(layer, visible, 64, 16);
  }
}

TEST("block_sparse: the blocks of 64 with the best pooled scores") {
  for (const Case& c : kCases) {
    Layer layer(c);
    HeadPlan head = plan(Pattern::kBlockSparse);
    head.blocks = 6;
    const auto visits = [&](int64_t t, int64_t h) {
      const int64_t tile = t / 64 * 64, first = c.before + tile, rows = std::min<int64_t>(64, c.tokens - tile), candidates = first / 64;
      std::vector<std::pair<double, int64_t>> order;
      for (int64_t b = 0; b < candidates; ++b) {
        double score = 0;
        for (int64_t i = 0; i < c.d; ++i) {
          double query = 0, key = 0;
          for (int64_t r = 0; r < rows; ++r) query += static_cast<double>(layer.queries()[static_cast<size_t>(((tile + r) * c.heads() + h) * c.d + i)]) / static_cast<double>(rows);
          for (int64_t j = 0; j < 64; ++j) key += static_cast<double>(layer.keys()[static_cast<size_t>(((b * 64 + j) * c.kv_heads + h / c.group) * c.d + i)]) / 64;
          score += query * key;
        }
        order.emplace_back(-score, b);
      }
      std::sort(order.begin(), order.end());
      const int64_t own = (first + rows + 63) / 64 - candidates, budget = std::clamp<int64_t>(head.blocks - own, 0, candidates);
      std::set<int64_t> blocks;
      for (int64_t i = 0; i < budget; ++i) blocks.insert(order[static_cast<size_t>(i)].second);
      Visited visited{up_to(c.before + t), {}};
      std::erase_if(visited.keys, [&](int64_t key) { return key < candidates * 64 && !blocks.contains(key / 64); });
      return visited;
    };
    CHECK(worst_error(layer, layer.attend(all(c, head)), visits, 50) < 2e-5);
    if (c.tokens < 50) check_coverage(layer, visits, 64, 16);
  }
}

TEST("vertical_slash: columns and diagonals by the attention of the last 64 rows") {
  for (const Case& c : every_format()) {
    Layer layer(c);
    HeadPlan head = plan(Pattern::kVerticalSlash);
    head.columns = 150;
    head.diagonals = 120;
    const auto visits = [&](int64_t t, int64_t h) {
      const int64_t rows = std::min<int64_t>(64, c.tokens), n = c.end();
      std::vector<double> vertical(static_cast<size_t>(n)), slash(static_cast<size_t>(n));
      for (int64_t row = c.tokens - rows; row < c.tokens; ++row) {
        const int64_t position = c.before + row;
        double maximum = -1e300, sum = 0;
        for (int64_t key = 0; key <= position; ++key) maximum = std::max(maximum, layer.score(row, h, key));
        for (int64_t key = 0; key <= position; ++key) sum += std::exp(layer.score(row, h, key) - maximum);
        for (int64_t key = 0; key <= position; ++key) {
          const double p = std::exp(layer.score(row, h, key) - maximum) / sum;
          vertical[static_cast<size_t>(key)] += p;
          slash[static_cast<size_t>(position - key)] += p;
        }
      }
      std::fill_n(vertical.begin(), std::min<int64_t>(c.before > 0 ? 130 : 30, n), 1e9);
      std::fill_n(slash.begin(), std::min<int64_t>(100, n), 1e9);
      const auto top = [](const std::vector<double>& values, int64_t count) {
        std::vector<int64_t> order(values.size());
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)]; });
        order.resize(std::min(order.size(), static_cast<size_t>(count)));
        return std::set<int64_t>(order.begin(), order.end());
      };
      const std::set<int64_t> columns = top(vertical, head.columns), diagonals = top(slash, head.diagonals);
      // Of a block of 64 rows each diagonal is a block of 64 keys, from where its first row meets it. Where one overlaps what is
      // there, that grows by a whole block, as in MInference's index.
      const int64_t first = c.before + t / 64 * 64;
      std::vector<char> seen(static_cast<size_t>(n) + 128, 0);
      int64_t grown = -1;
      for (auto distance = diagonals.rbegin(); distance != diagonals.rend(); ++distance) {
        if (*distance >= first + 64) continue;
        const int64_t begin = std::max<int64_t>(first - *distance, 0), from = begin > grown ? begin : grown;
        if (begin + 64 <= grown) continue;
        std::fill_n(seen.begin() + from, 64, 1);
        grown = from + 64;
      }
      Visited visited{up_to(c.before + t), {}};
      std::erase_if(visited.keys, [&](int64_t key) { return !seen[static_cast<size_t>(key)] && !(columns.contains(key) && key < first); });
      return visited;
    };
    CHECK(worst_error(layer, layer.attend(all(c, head)), visits, 50) < 2e-5);
    if (c.tokens == 1) check_coverage(layer, visits, 64, 16);
  }
}

TEST("adaptive: blocks that hold mass, the others by their means") {
  for (const Case& c : kCases)
    for (const float threshold : {0.02f, 2.0f}) {
      Layer layer(c);
      HeadPlan head = plan(Pattern::kAdaptive);
      head.sink = 64;
      head.window = 200;
      head.threshold = threshold;
      const double worst = worst_error(layer, layer.attend(all(c, head)), adaptive_visits(layer, head), 20);
      if (!(worst < 1e-4)) check::fail(__FILE__, __LINE__, "off by " + std::to_string(worst) + " at d " + std::to_string(c.d) + ", threshold " + std::to_string(threshold));
    }
}

TEST("adaptive: what is visited, and the mass that the first tile of each 512 rows covers, are counted for each head of a group") {
  for (const Case& c : {Case{2, 3, 64, 1003, 45}, Case{1, 2, 64, 700, 32}, Case{1, 3, 96, 637, 9}, Case{1, 1, 64, 160, 530}, Case{1, 1, 64, 160, 255}})
    for (const float threshold : {0.02f, 2.0f}) {
      Layer layer(c);
      HeadPlan head = plan(Pattern::kAdaptive);
      head.sink = 40;
      head.window = c.tokens == 255 ? 1 : 100;  // a tile may leave out blocks behind the last row that is sampled
      head.threshold = threshold;
      CHECK(worst_error(layer, layer.attend(all(c, head)), adaptive_visits(layer, head), 20) < 1e-4);
      check_coverage(layer, adaptive_visits(layer, head), 32, 16);
    }
}

TEST("adaptive: a key that its block's mean hides is found where a row that looks at every key looks for it") {
  HeadPlan head = plan(Pattern::kAdaptive);
  head.window = 64;
  head.threshold = 0.025f;
  // Hot keys, 708 among them, are what a chunk's last row looks for. Of 256 rows the last is sampled, of 255 it is not.
  for (const int64_t tokens : {256, 255}) {
    const Case c{1, 1, 64, 1800, tokens};
    Layer layer(c);
    const Visits visits = adaptive_visits(layer, head);
    for (const int64_t row : {int64_t{0}, tokens - 1}) {
      const std::vector<int64_t> keys = visits(row, 0).keys;
      CHECK(std::binary_search(keys.begin(), keys.end(), 708) == (tokens == 256));
    }
    CHECK(worst_error(layer, layer.attend({head}), visits, 20) < 1e-4);
  }
}

TEST("adaptive: in a context twice as long a block is visited for half the share, and nothing else changes") {
  HeadPlan head = plan(Pattern::kAdaptive);
  head.threshold = 0.0012f;
  for (const int64_t block : {32, 128}) {
    for (const int64_t length : {int64_t{1}, int64_t{4096}, 1024 * block}) CHECK(sparse::at_length(head, length, block) == head);
    CHECK_NEAR(sparse::at_length(head, 2048 * block, block).threshold, 0.0006, 1e-9);
    CHECK_NEAR(sparse::at_length(head, int64_t{1} << 20, block).threshold, 0.0012 * static_cast<double>(block) / 1024, 1e-9);
  }
  for (const AdaptiveRule rule : {AdaptiveRule::kMass, AdaptiveRule::kRelative}) {
    HeadPlan other = head;
    other.rule = rule;
    CHECK(sparse::at_length(other, int64_t{1} << 20, 32) == other);
  }
  for (const Pattern pattern : {Pattern::kDense, Pattern::kAShape, Pattern::kVerticalSlash, Pattern::kBlockSparse}) CHECK(sparse::at_length(plan(pattern), int64_t{1} << 20, 32) == plan(pattern));
}

TEST("adaptive: without a window a row still sees itself, wherever its tile begins in a block") {
  for (const int64_t before : {479, 480, 511, 512}) {
    const Case c{1, 2, 64, before, 70};
    Layer layer(c);
    HeadPlan head = plan(Pattern::kAdaptive);
    head.sink = 64;
    head.window = 0;
    head.threshold = 2;  // nothing has so much: every block that may be left out is
    HeadPlan least = head;
    least.window = 1;
    CHECK(worst_error(layer, layer.attend(all(c, head)), adaptive_visits(layer, least)) < 1e-4);
  }
}

// A model file may make any of them.
TEST("scores that are not numbers lead no choice astray: numbers go before them, and adaptive blocks stay") {
  constexpr size_t kCount = 1000;
  std::vector<float> scores(kCount, std::nanf(""));
  for (size_t i = 0; i < kCount; i += 3) scores[i] = static_cast<float>(i % 70);
  HeadPlan head = plan(Pattern::kBlockSparse);
  head.blocks = 201;
  for (const auto& [begin, end] : sparse::block_sparse_keys(head, kCount * 64 + 64, scores).ranges)
    for (int64_t block = begin / 64; block < end / 64 && block < static_cast<int64_t>(kCount); ++block) CHECK(!std::isnan(scores[static_cast<size_t>(block)]));

  head = plan(Pattern::kVerticalSlash);
  head.columns = head.diagonals = 200;
  const auto index = sparse::vertical_slash_index(head, 1, kCount, false, [&](int64_t) { return std::span<const float>(scores); });
  CHECK(index.columns.size() == 200 && index.diagonals.size() == 200);
  for (const int32_t column : index.columns) CHECK(column >= 0 && column < static_cast<int32_t>(kCount) && (column < 30 || !std::isnan(scores[static_cast<size_t>(column)])));

  head = plan(Pattern::kAdaptive);
  head.rule = AdaptiveRule::kMass;
  head.threshold = 0.1f;
  std::vector<uint8_t> keep(kCount);
  sparse::adaptive_select(head, scores, keep);
  CHECK(std::count(keep.begin(), keep.end(), 1) == static_cast<int64_t>(kCount));
}

TEST("heads of one layer may differ") {
  const Case c{1, 5, 64, 900, 70};
  Layer layer(c);
  std::vector<HeadPlan> plans = {plan(Pattern::kDense), plan(Pattern::kAShape), plan(Pattern::kVerticalSlash), plan(Pattern::kBlockSparse), plan(Pattern::kAdaptive)};
  plans[1].window = 100;
  plans[3].blocks = 4;
  const auto mixed = layer.attend(plans);
  for (size_t h = 0; h < plans.size(); ++h) {
    const auto alone = layer.attend(all(c, plans[h]));
    for (int64_t t = 0; t < c.tokens; ++t)
      for (int64_t i = 0; i < c.d; ++i) {
        const auto at = static_cast<size_t>((t * c.heads() + static_cast<int64_t>(h)) * c.d + i);
        CHECK_NEAR(mixed[at], alone[at], 1e-5);
      }
  }
}

TEST("every code path and every format of pages agree") {
  for (const std::string& isa : available_cpu_isas())
    for (const KvFormat format : {KvFormat::kFloat32, KvFormat::kBFloat16, KvFormat::kQ8, KvFormat::kQ4}) {
      Case c{2, 3, 64, 1003, 77};
      c.format = format;
      c.isa = isa;
      c.precision = format == KvFormat::kFloat32 ? Precision::kFloat32 : Precision::kAuto;
      Layer layer(c);
      HeadPlan head = plan(Pattern::kAdaptive);
      head.sink = 64;
      head.window = 200;
      // Thresholds between which nothing lies: rounding must not decide what is visited.
      head.threshold = 2;
      const double bound = format == KvFormat::kFloat32 ? 1e-4 : 3e-2;
      CHECK(worst_error(layer, layer.attend(all(c, head)), adaptive_visits(layer, head), 20) < bound);
      head.threshold = 0;
      CHECK(worst_error(layer, layer.attend(all(c, head)), [&](int64_t t, int64_t) { return Visited{up_to(c.before + t), {}}; }, 20) < bound);
    }
}

TEST("probes find the mass that a mean hides") {
  const Case c{1, 1, 64, 1800, 256};
  Layer layer(c);
  HeadPlan head = plan(Pattern::kAdaptive);
  head.window = 64;
  head.threshold = 0;
  layer.attend({head});
  const HeadCoverage all_visited = layer.coverage()[0];
  CHECK(all_visited.probes > 0);
  CHECK_NEAR(all_visited.covered / static_cast<double>(all_visited.probes), 1, 1e-4);
  head.threshold = 2;  // the hot keys are in blocks whose means are nothing
  layer.attend({head});
  const HeadCoverage hidden = layer.coverage()[0];
  CHECK(hidden.covered / static_cast<double>(hidden.probes) < 0.9);
  CHECK(hidden.visited < 0.6 * hidden.causal);
}

TEST_MAIN()
