// Sparse attention on the CPU against references in double that share no code with it: what each pattern visits is decided
// anew from its definition, and the softmax is taken over that.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>
#include <numeric>
#include <random>
#include <set>

#include "backend/backend.h"
#include "base/half.h"
#include "cache/page_list.h"
#include "check.h"
#include "cpu/q8.h"

using namespace longview;

namespace {

constexpr int64_t kBlock = 32;  // of means

// One layer of random keys and values in pages, and the queries of its last chunk.
struct Case {
  int64_t kv_heads, group, d, before, tokens;
  KvFormat format = KvFormat::kFloat32;
  Precision precision = Precision::kFloat32;
  std::string isa = "";
  uint32_t seed = 1;

  int64_t heads() const { return kv_heads * group; }
  int64_t end() const { return before + tokens; }
};

class Layer {
 public:
  explicit Layer(const Case& c) : c_(c), backend_(make_cpu_backend({2, c.precision, c.isa})), shape_{1, c.kv_heads, c.d, c.format, kBlock}, pool_(*backend_, shape_, (c.end() + 127) / 128 + 2), index_(pool_, 1), list_(*backend_, pool_, index_) {
    std::mt19937 random(c.seed);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& values, int64_t count, float scale) {
      values.resize(static_cast<size_t>(count));
      for (float& x : values) x = normal(random) * scale;
    };
    fill(q_, c.tokens * c.heads() * c.d, 1.5f);
    fill(k_, c.end() * c.kv_heads * c.d, 1.0f);
    fill(v_, c.end() * c.kv_heads * c.d, 1.0f);
    // Outliers: a sink, a few hot keys, one dimension that dwarfs the others.
    for (int64_t h = 0; h < c.kv_heads; ++h) {
      for (int64_t i = 0; i < c.d; ++i) k(0, h)[i] *= 3;
      for (int64_t hot = 97; hot < c.end(); hot += 611)
        for (int64_t i = 0; i < c.d; ++i) k(hot, h)[i] = q_[static_cast<size_t>((c.tokens - 1) * c.heads() * c.d + h * c.group * c.d + i)] * 1.2f;
    }
    for (int64_t t = 0; t < c.end(); ++t) k(t, 0)[3] += 8;

    RopeConfig still;  // every position is turned by nothing
    still.inverse_frequencies.assign(static_cast<size_t>(c.d / 2), 0.0);
    still.dims = c.d;
    const auto rope = backend_->upload_rope(still);
    // In two steps that do not end where blocks do: the second one finishes a block that the first began.
    const int64_t first = std::min<int64_t>(c.before, std::max<int64_t>(c.before - 45, 0));
    write(0, first, *rope);
    write(first, c.before - first, *rope);
    write(c.before, c.tokens, *rope);
  }

  // out [tokens, heads, d]; plans [heads], empty for dense.
  std::vector<float> attend(const std::vector<HeadPlan>& plans) {
    Activation q = backend_->allocate(c_.tokens, c_.heads() * c_.d), out = backend_->allocate(c_.tokens, c_.heads() * c_.d);
    std::copy(q_.begin(), q_.end(), static_cast<float*>(q.data));
    std::fill_n(static_cast<float*>(out.data), c_.tokens * c_.heads() * c_.d, std::numeric_limits<float>::quiet_NaN());
    if (plans.empty()) backend_->attention(q, shape_, c_.heads(), 0, list_.view(), c_.before, out);
    else backend_->attention_sparse(q, shape_, c_.heads(), 0, list_.view(), c_.before, plans, out);
    const auto* data = static_cast<const float*>(out.data);
    std::vector<float> result(data, data + c_.tokens * c_.heads() * c_.d);
    backend_->release(q);
    backend_->release(out);
    return result;
  }

  std::vector<HeadCoverage> coverage() {
    std::vector<HeadCoverage> heads(static_cast<size_t>(c_.heads()));
    backend_->take_coverage(heads);
    return heads;
  }

  double score(int64_t token, int64_t head, int64_t key) const {
    double sum = 0;
    const float* query = q_.data() + (token * c_.heads() + head) * c_.d;
    for (int64_t i = 0; i < c_.d; ++i) sum += static_cast<double>(query[i]) * key_value(k_, key, head / c_.group, i);
    return sum / std::sqrt(static_cast<double>(c_.d));
  }
  double value(int64_t key, int64_t head, int64_t i) const { return key_value(v_, key, head / c_.group, i); }
  // What pages hold: rounded where they hold bf16, a code times a scale where they hold q8.
  double key_value(const std::vector<float>& from, int64_t key, int64_t kv_head, int64_t i) const {
    const float& x = from[static_cast<size_t>((key * c_.kv_heads + kv_head) * c_.d + i)];
    if (c_.format == KvFormat::kQ8) {
      int8_t codes[cpu::kQ8Block];
      const int64_t first = i / cpu::kQ8Block * cpu::kQ8Block;
      const uint16_t scale = cpu::quantize_q8(&x - (i - first), std::min(cpu::kQ8Block, c_.d - first), codes);
      return static_cast<double>(codes[i - first]) * static_cast<double>(bf16_to_float(scale));
    }
    return static_cast<double>(c_.format == KvFormat::kBFloat16 ? bf16_to_float(float_to_bf16(x)) : x);
  }
  const Case& c() const { return c_; }
  const std::vector<float>& keys() const { return k_; }
  const std::vector<float>& values() const { return v_; }
  const std::vector<float>& queries() const { return q_; }

 private:
  float* k(int64_t token, int64_t head) { return k_.data() + (token * c_.kv_heads + head) * c_.d; }

  void write(int64_t first, int64_t count, DeviceRope& rope) {
    if (count <= 0) return;
    list_.reserve(count);
    Activation q = backend_->allocate(count, c_.heads() * c_.d), keys = backend_->allocate(count, c_.kv_heads * c_.d), values = backend_->allocate(count, c_.kv_heads * c_.d);
    std::fill_n(static_cast<float*>(q.data), count * c_.heads() * c_.d, 0.0f);
    const int64_t width = c_.kv_heads * c_.d;
    std::copy_n(k_.begin() + first * width, count * width, static_cast<float*>(keys.data));
    std::copy_n(v_.begin() + first * width, count * width, static_cast<float*>(values.data));
    backend_->rope_and_append_kv(q, keys, values, rope, shape_, 0, list_.view(), first);
    std::vector<int32_t> ids(static_cast<size_t>(count));
    std::iota(ids.begin(), ids.end(), static_cast<int32_t>(first));
    list_.advance(ids);
    for (Activation* buffer : {&q, &keys, &values}) backend_->release(*buffer);
  }

  Case c_;
  std::unique_ptr<Backend> backend_;
  KvShape shape_;
  PagePool pool_;
  PrefixIndex index_;
  PageList list_;
  std::vector<float> q_, k_, v_;
};

// A block that stands in by its mean: `length` keys of this score and value.
struct Mean {
  double score, length;
  std::vector<double> value;
};
struct Visited {
  std::vector<int64_t> keys;
  std::vector<Mean> means;
};
using Visits = std::function<Visited(int64_t token, int64_t head)>;

// Largest difference from softmax attention over what `visits` names, in every `step`th row and the last.
double worst_error(const Layer& layer, const std::vector<float>& out, const Visits& visits, int64_t step = 1) {
  const Case& c = layer.c();
  double worst = 0;
  for (int64_t t = 0; t < c.tokens; ++t) {
    if (t % step != 0 && t != c.tokens - 1) continue;
    for (int64_t h = 0; h < c.heads(); ++h) {
      const Visited visited = visits(t, h);
      double maximum = -1e300, sum = 0;
      for (const int64_t key : visited.keys) maximum = std::max(maximum, layer.score(t, h, key));
      for (const Mean& mean : visited.means) maximum = std::max(maximum, mean.score);
      std::vector<double> expected(static_cast<size_t>(c.d), 0.0);
      for (const int64_t key : visited.keys) {
        const double p = std::exp(layer.score(t, h, key) - maximum);
        sum += p;
        for (int64_t i = 0; i < c.d; ++i) expected[static_cast<size_t>(i)] += p * layer.value(key, h, i);
      }
      for (const Mean& mean : visited.means) {
        const double p = mean.length * std::exp(mean.score - maximum);
        sum += p;
        for (int64_t i = 0; i < c.d; ++i) expected[static_cast<size_t>(i)] += p * mean.value[static_cast<size_t>(i)];
      }
      const float* row = out.data() + (t * c.heads() + h) * c.d;
      for (int64_t i = 0; i < c.d; ++i) worst = std::max(worst, std::isfinite(row[i]) ? std::fabs(expected[static_cast<size_t>(i)] / sum - static_cast<double>(row[i])) : 1e300);
    }
  }
  return worst;
}

std::vector<int64_t> up_to(int64_t position) {
  std::vector<int64_t> keys(static_cast<size_t>(position + 1));
  std::iota(keys.begin(), keys.end(), 0);
  return keys;
}

HeadPlan plan(Pattern pattern) { return default_plan(pattern); }
std::vector<HeadPlan> all(const Case& c, const HeadPlan& head) { return std::vector<HeadPlan>(static_cast<size_t>(c.heads()), head); }

// kv_heads, group, d, tokens before, tokens.
const std::vector<Case> kCases = {
    {1, 1, 64, 1500, 130}, {2, 3, 64, 1003, 77}, {1, 4, 128, 700, 64}, {1, 7, 96, 900, 33}, {2, 1, 64, 0, 500}, {1, 2, 64, 1291, 1},
};

// These and q8 ones, for what does not depend on means: q8 rounds means to bf16. The last has a ragged block of 32.
std::vector<Case> every_format() {
  std::vector<Case> cases = kCases;
  for (const auto& [kv_heads, group, d, before, tokens] : std::vector<std::array<int64_t, 5>>{{2, 3, 64, 503, 77}, {1, 4, 128, 391, 1}, {1, 2, 80, 300, 40}}) {
    Case c{kv_heads, group, d, before, tokens, KvFormat::kQ8, Precision::kFloat32, "", 2};
    cases.push_back(c);
  }
  return cases;
}

// What an adaptive row visits, from the definition: tiles of 32 positions of one head; behind the sink and before the window
// a block of 32 keys is visited where its weight in the softmax over all blocks before the tile, as a mean over the tile's rows,
// reaches the threshold. It weighs as keys with the scores' mean and, of each dim, the keys' mean variance, by 2^8.66 more at most.
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
    const auto visited_block = [&](int64_t b) { return b < begin || b >= end || mass[static_cast<size_t>(b)] >= static_cast<double>(head.threshold); };
    Visited visited;
    for (const int64_t key : up_to(c.before + t))
      if (visited_block(key / kBlock)) visited.keys.push_back(key);
    for (int64_t b = begin; b < end; ++b)
      if (!visited_block(b)) visited.means.push_back({mean_score(t, static_cast<size_t>(b)), kBlock, value_means[static_cast<size_t>(b)]});
    return visited;
  };
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
    double visited = 0;
    for (int64_t t = 0; t < c.tokens; ++t) visited += static_cast<double>(visible(t, 0).keys.size());
    CHECK_NEAR(layer.coverage()[0].visited, visited, 0.5);
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
    for (const KvFormat format : {KvFormat::kFloat32, KvFormat::kBFloat16, KvFormat::kQ8}) {
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
