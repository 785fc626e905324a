// Sparse attention against double: the keys of the pages that the index chose, and means for the others.
#include "kernels/sparse_case.h"

using namespace longview;
using namespace sparse_case;

namespace {

// What stands for the pages of a context, in double: means, or means weighed by the probes, with a gain.
class StandIns {
 public:
  StandIns(const Context& c, bool weighed) : c_(c), group_(c.shape().heads / c.shape().kv_heads), of_(static_cast<size_t>(c.shape().kv_heads * c.pages())) {
    if (!weighed) return;
    const Shape& s = c.shape();
    const int64_t probes = std::min(s.tokens, kernels::kProbeTokens);
    for (int64_t i = 0; i < probes; ++i)
      for (int64_t h = 0; h < s.heads; ++h) probes_.push_back({(2 * i + 1) * s.tokens / (2 * probes), h, 0});
    in_parallel(probes_.size(), [&](size_t i) {
      Probe& probe = probes_[i];
      double highest = -INFINITY, sum = 0;
      std::vector<double> scores;
      for (int64_t key = 0; key <= s.first + probe.token; ++key) scores.push_back(c.score(probe.token, probe.head, key));
      for (const double score : scores) highest = std::max(highest, score);
      for (const double score : scores) sum += std::exp(score - highest);
      probe.offset = -highest - std::log(sum);
    });
    in_parallel(of_.size(), [&](size_t at) { weigh(static_cast<int64_t>(at) / c.pages(), static_cast<int64_t>(at) % c.pages()); });
  }
  double score(int64_t t, int64_t h, int64_t page) const {
    const Page& of = page_of(h, page);
    if (of.key.empty()) return c_.mean_score(t, h, page) + std::log(128.0);
    double sum = 0;
    for (int64_t i = 0; i < c_.shape().d; ++i) sum += c_.query(t, h, i) * of.key[static_cast<size_t>(i)];
    return sum / std::sqrt(static_cast<double>(c_.shape().d)) + of.gain;
  }
  double value(int64_t h, int64_t page, int64_t i) const {
    const Page& of = page_of(h, page);
    return of.key.empty() ? c_.mean_value(h, page, i) : of.value[static_cast<size_t>(i)];
  }

 private:
  struct Probe {
    int64_t token, head;
    double offset;  // of the logarithm of a weight
  };
  struct Page {
    std::vector<double> key, value;  // empty: the means
    double gain = 0;
  };

  const Page& page_of(int64_t h, int64_t page) const { return of_[static_cast<size_t>(h / group_ * c_.pages() + page)]; }
  void weigh(int64_t kv_head, int64_t page) {
    const Shape& s = c_.shape();
    std::vector<double> weights(kPageTokens, 0);
    const auto sees = [&](const Probe& probe) { return probe.head / group_ == kv_head && s.first + probe.token >= (page + 1) * kPageTokens - 1; };
    for (const Probe& probe : probes_)
      if (sees(probe))
        for (int64_t t = 0; t < kPageTokens; ++t) weights[static_cast<size_t>(t)] += std::exp(c_.score(probe.token, probe.head, page * kPageTokens + t) + probe.offset);
    const double found = std::accumulate(weights.begin(), weights.end(), 0.0);
    if (!(found > 1e-30)) return;
    Page of;
    for (int64_t i = 0; i < s.d; ++i) {
      double key = 0, value = 0;
      for (int64_t t = 0; t < kPageTokens; ++t) {
        key += weights[static_cast<size_t>(t)] * c_.key(kv_head * group_, page * kPageTokens + t, i);
        value += weights[static_cast<size_t>(t)] * c_.value(kv_head * group_, page * kPageTokens + t, i);
      }
      of.key.push_back(bf16_to_float(float_to_bf16(static_cast<float>(key / found))));
      of.value.push_back(value / found);
    }
    double expected = 0;
    for (const Probe& probe : probes_) {
      if (!sees(probe)) continue;
      double sum = 0;
      for (int64_t i = 0; i < s.d; ++i) sum += c_.query(probe.token, probe.head, i) * of.key[static_cast<size_t>(i)];
      expected += std::exp(sum / std::sqrt(static_cast<double>(s.d)) + probe.offset);
    }
    of.gain = std::log(128.0) + std::clamp(std::log2(found / expected) - 7, -5.8, 2.9) * std::log(2.0);
    of_[static_cast<size_t>(kv_head * c_.pages() + page)] = std::move(of);
  }

  const Context& c_;
  const int64_t group_;
  std::vector<Page> of_;  // [KV heads, pages]
  std::vector<Probe> probes_;
};

// Output of token t and head h of the group.
std::vector<double> attend(const Context& c, const StandIns& stand_ins, const std::vector<uint32_t>& bits, const HeadGroup& g, int64_t t, int64_t h, const std::vector<float>& sinks) {
  const Shape& s = c.shape();
  const int64_t row = t * g.heads + h - g.first_head, tile = c.tile_of(g, row), position = s.first + t;
  const auto [begin, end] = c.candidates(g, s.first + row / kSparseTileRows * kSparseTileRows / g.heads);
  struct Key {
    double score;
    int64_t at;  // a key, or ~ a page
  };
  std::vector<Key> keys;
  for (int64_t page = 0; page <= position / kPageTokens; ++page) {
    if (c.bit(bits, tile, page)) {
      for (int64_t key = page * kPageTokens; key < (page + 1) * kPageTokens && key <= position; ++key)
        if (!g.limited || key < g.sink || key > position - g.window) keys.push_back({c.score(t, h, key), key});
    } else if (g.means && page >= begin && page < end) {
      keys.push_back({stand_ins.score(t, h, page), ~page});
    }
  }
  double highest = -INFINITY, sum = 0;
  for (const Key& key : keys) highest = std::max(highest, key.score);
  std::vector<double> out(static_cast<size_t>(s.d), 0);
  for (const Key& key : keys) {
    const double weight = std::exp(key.score - highest);
    sum += weight;
    for (int64_t i = 0; i < s.d; ++i) out[static_cast<size_t>(i)] += weight * (key.at >= 0 ? c.value(h, key.at, i) : stand_ins.value(h, ~key.at, i));
  }
  if (!sinks.empty()) sum += std::exp(sinks[static_cast<size_t>(h)] - highest);
  for (double& x : out) x /= sum;
  return out;
}

// `multiprocessors`: few make persistent blocks go through many tiles. `weighed`: stand-ins by the probes.
void check_attention(const Context& c, const char* what, int32_t multiprocessors = 0, bool weighed = false, const std::vector<float>& sinks = {}) {
  kernels::SparseArgs args = c.args();
  const gpu::Memory<float> dsinks(sinks.empty() ? std::vector<float>(1) : sinks);
  if (!sinks.empty()) args.sinks = dsinks.get();
  if (multiprocessors > 0) args.multiprocessors = multiprocessors;
  GPU(sparse_index(args, gpu::stream()));
  if (weighed) {
    GPU(sparse_coverage(args, gpu::stream()));
    GPU(sparse_stand_ins(args, gpu::stream()));
  }
  GPU(sparse_attention(args, gpu::stream()));
  const StandIns stand_ins(c, weighed);
  const std::vector<uint32_t> bits = c.bits();
  const std::vector<uint16_t> got = c.out();
  const Shape& s = c.shape();
  int64_t undefined = 0;
  for (const uint16_t x : got) undefined += !std::isfinite(bf16_to_float(x));
  CHECK(undefined == 0);
  const int64_t step = std::max<int64_t>(1, s.tokens * s.heads * (s.first + s.tokens) / 3000000);
  struct Row {
    const HeadGroup* group;
    int64_t token, head;
  };
  std::vector<Row> checked;
  int64_t number = 0;
  for (const HeadGroup& g : c.groups())
    for (int64_t t = 0; t < s.tokens; ++t)
      for (int64_t h = g.first_head; h < g.first_head + g.heads; ++h)
        if (number++ % step == 0 || t == s.tokens - 1) checked.push_back({&g, t, h});
  std::vector<std::vector<double>> outs(checked.size());
  in_parallel(checked.size(), [&](size_t i) { outs[i] = attend(c, stand_ins, bits, *checked[i].group, checked[i].token, checked[i].head, sinks); });
  std::vector<double> wanted;
  std::vector<uint16_t> rows;
  double largest = 0, worst_block = 0;
  for (size_t r = 0; r < checked.size(); ++r) {
    const std::vector<double>& out = outs[r];
    const auto from = got.begin() + (checked[r].token * s.heads + checked[r].head) * s.d;
    for (int64_t i = 0; i < s.d; ++i) largest = std::max(largest, std::fabs(bf16_to_float(from[i]) - out[static_cast<size_t>(i)]));
    worst_block = std::max(worst_block, gpu::relative_error(std::vector<uint16_t>(from, from + s.d), out));
    wanted.insert(wanted.end(), out.begin(), out.end());
    rows.insert(rows.end(), from, from + s.d);
  }
  const double error = gpu::relative_error(rows, wanted);
  const bool e4m3 = c.format() == PageFormat::kE4M3;
  std::printf("  %s %s T %5d first %6d heads %d/%d d %3d: %.1e, worst row %.1e, largest %.1e\n", c.args().architecture ? "sm80" : e4m3 ? "e4m3" : "best", what, int(s.tokens), int(s.first), int(s.heads), int(s.kv_heads), int(s.d), error, worst_block, largest);
  CHECK(error <= (e4m3 ? 4e-2 : 5e-3));  // weights are e4m3, and means; or weights and results bf16
  CHECK(worst_block <= (e4m3 ? 0.15 : 2e-2));
}

std::vector<HeadGroup> plans_of(const Shape& s, const HeadGroup& plan) { return std::vector<HeadGroup>(static_cast<size_t>(s.kv_heads), plan); }

}  // namespace

TEST("adaptive: ragged chunks and prefixes, groups of 1, 3, 4 and 7 heads, one token") {
  for (const int32_t architecture : {0, 80})
    for (const int64_t d : {64, 128, 256})
      for (const Shape& s : {Shape{1, 5000, 4, 1, d}, Shape{1, 0, 1, 1, d}, Shape{300, 4000, 9, 3, d}, Shape{700, 9001, 14, 2, d}, Shape{257, 20000, 4, 4, d}, Shape{2100, 0, 8, 2, d}, Shape{129, 40001, 7, 1, d}}) {
        check_attention(Context(s, plans_of(s, adaptive(PageRule::kShare, 0.01f)), Data::kPlain, architecture), "share, means   ");
        check_attention(Context(s, plans_of(s, adaptive(PageRule::kRelative, 0.2f, false)), Data::kPlain, architecture), "relative       ");
      }
}

TEST("heads of 256 in groups of 4, 6, 8 and 12, whose tiles begin anywhere in a token's heads") {
  for (const int32_t architecture : {0, 80})
    for (const Shape& s : {Shape{500, 6000, 16, 4, 256}, Shape{333, 9001, 24, 4, 256}, Shape{1100, 0, 16, 2, 256}, Shape{257, 20000, 12, 1, 256}, Shape{43, 5119, 12, 1, 256}}) {
      check_attention(Context(s, plans_of(s, adaptive(PageRule::kShare, 0.01f)), Data::kPlain, architecture), "groups         ", 3);
      check_attention(Context(s, plans_of(s, adaptive(PageRule::kShare, 2.0f)), Data::kPlain, architecture), "groups, means  ", 5, true);
      check_attention(Context(s, plans_of(s, a_shape(100, 800)), Data::kOutliers, architecture), "groups, A-shape", 2);
    }
}

TEST("heads with sinks: tiles that begin anywhere in a token's heads, many for a block") {
  for (const int32_t architecture : {0, 80})
    for (const Shape& s : {Shape{500, 6000, 16, 4, 64}, Shape{333, 9001, 24, 2, 64}, Shape{1100, 0, 16, 2, 64}, Shape{257, 20000, 9, 1, 64}, Shape{1, 5000, 4, 1, 64}}) {
      const std::vector<float> sinks = gpu::some_sinks(s.heads);
      check_attention(Context(s, plans_of(s, adaptive(PageRule::kShare, 0.01f)), Data::kPlain, architecture), "sinks          ", 3, false, sinks);
      check_attention(Context(s, plans_of(s, adaptive(PageRule::kShare, 2.0f)), Data::kPlain, architecture), "sinks, means   ", 5, true, sinks);
      check_attention(Context(s, plans_of(s, a_shape(100, 800)), Data::kOutliers, architecture), "sinks, A-shape ", 2, false, sinks);
    }
  if (gpu::properties().major == 9)
    for (const Shape& s : {Shape{500, 6000, 16, 4, 64}, Shape{1100, 0, 16, 2, 64}})
      check_attention(Context(s, plans_of(s, adaptive(PageRule::kShare, 0.01f)), Data::kPlain, 0, PageFormat::kE4M3), "sinks          ", 3, false, gpu::some_sinks(s.heads));
  const Shape wide{300, 4000, 8, 2, 128};
  const Context c(wide, plans_of(wide, dense()));
  const gpu::Memory<float> sinks(gpu::some_sinks(wide.heads));
  kernels::SparseArgs args = c.args();
  args.sinks = sinks.get();
  CHECK(gpu::library().sparse_attention(args, gpu::stream()) == kernels::kInvalidShape);
}

TEST("nothing but window and means, and everything: no candidate, all candidates") {
  for (const int32_t architecture : {0, 80})
    for (const float threshold : {0.0f, 2.0f}) {
      for (const Shape& s : {Shape{400, 20000, 8, 2, 128}, Shape{400, 20000, 8, 2, 256}})
        check_attention(Context(s, plans_of(s, adaptive(PageRule::kShare, threshold)), Data::kPlain, architecture), threshold == 0 ? "all candidates " : "no candidate   ");
    }
}

TEST("stand-ins weighed by the probes: ragged chunks, groups, one token, outliers, heads with plans of their own") {
  for (const int32_t architecture : {0, 80})
    for (const int64_t d : {64, 128, 256}) {
      for (const Shape& s : {Shape{1, 5000, 4, 1, d}, Shape{300, 4000, 9, 3, d}, Shape{700, 9001, 14, 2, d}, Shape{2100, 0, 8, 2, d}, Shape{129, 20001, 7, 1, d}}) {
        check_attention(Context(s, plans_of(s, adaptive(PageRule::kShare, 0.01f)), Data::kPlain, architecture), "weighed        ", 0, true);
        check_attention(Context(s, plans_of(s, adaptive(PageRule::kShare, 2.0f)), Data::kPlain, architecture), "weighed, all   ", 3, true);
      }
      const Shape s{500, 9000, 6, 2, d};
      check_attention(Context(s, plans_of(s, adaptive(PageRule::kShare, 0.01f)), Data::kOutliers, architecture), "weighed, outliers", 0, true);
      check_attention(Context(s, {dense(), a_shape(100, 800), adaptive(PageRule::kShare, 0.01f), slash(20, 300), adaptive(PageRule::kMass, 0.2f), blocks(12)}, Data::kPlain, architecture), "weighed, mixed ", 0, true);
    }
}

TEST("a chunk that is read again is the same to the last bit") {
  for (const int32_t architecture : {0, 80})
    for (const auto& [format, d] : {std::pair{PageFormat::kBFloat16, 128}, {PageFormat::kE4M3, 128}, {PageFormat::kBFloat16, 256}}) {
      if (format == PageFormat::kE4M3 && (architecture != 0 || gpu::properties().major != 9)) continue;
      const Shape s{700, 30001, 14, 2, d};
      const Context c(s, plans_of(s, adaptive(PageRule::kShare, 0.01f)), Data::kPlain, architecture, format);
      std::vector<uint16_t> first;
      for (int run = 0; run < 5; ++run) {
        for (auto launch : {gpu::library().sparse_index, gpu::library().sparse_coverage, gpu::library().sparse_stand_ins, gpu::library().sparse_attention}) CHECK(launch(c.args(), gpu::stream()) == 0);
        if (run == 0) first = c.out();
        CHECK(c.out() == first);
      }
    }
}

TEST("no sink, no window: a tile at the end of a page visits that page") {
  for (const int32_t architecture : {0, 80})
    for (const bool means : {false, true})
      for (const Shape& s : {Shape{129, 4095, 4, 1, 128}, Shape{129, 4095, 4, 1, 256}}) {
        HeadGroup plan = adaptive(PageRule::kShare, 2.0f, means);
        plan.sink = plan.window = 0;
        check_attention(Context(s, plans_of(s, plan), Data::kPlain, architecture), "nothing else   ");
      }
}

TEST("A-shape to the token, sink and window of any size") {
  for (const int32_t architecture : {0, 80})
    for (const auto& [sink, window] : {std::pair{100, 800}, {0, 1}, {1, 128}, {128, 129}, {1000, 64}, {7, 100000}}) {
      for (const Shape& s : {Shape{500, 3000, 6, 2, 64}, Shape{500, 3000, 6, 2, 256}}) check_attention(Context(s, plans_of(s, a_shape(sink, window)), Data::kPlain, architecture), "A-shape        ");
    }
}

TEST("scores of hundreds keep their softmax") {
  for (const int32_t architecture : {0, 80})
    for (const int64_t d : {64, 128, 256}) {
      const Shape s{500, 9000, 8, 2, d};
      check_attention(Context(s, plans_of(s, adaptive(PageRule::kShare, 0.01f)), Data::kOutliers, architecture), "outliers       ");
    }
}

TEST("dense, A-shape and adaptive heads in one launch") {
  for (const int32_t architecture : {0, 80})
    for (const Shape& s : {Shape{1000, 7000, 6, 2, 128}, Shape{1000, 7000, 6, 2, 256}})
      check_attention(Context(s, {dense(), a_shape(100, 800), adaptive(PageRule::kShare, 0.01f), a_shape(0, 1), adaptive(PageRule::kMass, 0.2f), dense()}, Data::kPlain, architecture), "mixed          ", s.d == 256 ? 7 : 0);
}

TEST("MInference's patterns beside all others in one launch") {
  for (const int32_t architecture : {0, 80})
    for (const int64_t d : {64, 128, 256}) {
      const Shape s{500, 7001, 6, 2, d};
      check_attention(Context(s, {dense(), slash(20, 300), slash(100, 100), blocks(12), adaptive(PageRule::kShare, 0.01f), a_shape(100, 800)}, Data::kPlain, architecture), "all patterns   ");
    }
}

TEST("over e4m3 pages: ragged chunks and prefixes, with means and without, A-shape and dense heads, outliers") {
  if (gpu::properties().major != 9) SKIP("this takes compute capability 9.0");
  const auto check = [](const Shape& s, std::vector<HeadGroup> plans, const char* what, Data data = Data::kPlain, int32_t multiprocessors = 0) {
    const Context c(s, std::move(plans), data, 0, PageFormat::kE4M3);
    CHECK(gpu::library().sparse_multiplies_e4m3(c.args()));
    check_attention(c, what, multiprocessors);
  };
  for (const int64_t d : {64, 128}) {
    for (const Shape& s : {Shape{1, 5000, 4, 1, d}, Shape{300, 4000, 9, 3, d}, Shape{700, 9001, 14, 2, d}, Shape{2100, 0, 8, 2, d}, Shape{129, 40001, 7, 1, d}}) {
      check(s, plans_of(s, adaptive(PageRule::kShare, 0.01f)), "share, means   ");
      check(s, plans_of(s, adaptive(PageRule::kRelative, 0.2f, false)), "relative       ", Data::kPlain, 3);
    }
    for (const Shape& s : {Shape{300, 4000, 9, 3, d}, Shape{700, 9001, 14, 2, d}})
      check_attention(Context(s, plans_of(s, adaptive(PageRule::kShare, 0.01f)), Data::kPlain, 0, PageFormat::kE4M3), "weighed        ", 0, true);
    check({1000, 7000, 6, 2, d}, {dense(), a_shape(100, 800), adaptive(PageRule::kShare, 0.01f), a_shape(0, 1), adaptive(PageRule::kMass, 0.2f), dense()}, "mixed          ");
    const Shape s{500, 9000, 8, 2, d};
    check(s, plans_of(s, adaptive(PageRule::kShare, 0.01f)), "outliers       ", Data::kOutliers);
  }
}

TEST("small over e4m3 pages, for compute-sanitizer") {
  if (gpu::properties().major != 9) SKIP("this takes compute capability 9.0");
  for (const int64_t d : {64, 128}) {
    const Shape s{150, 1300, 6, 2, d};
    check_attention(Context(s, plans_of(s, adaptive(PageRule::kShare, 0.05f)), Data::kPlain, 0, PageFormat::kE4M3), "small          ", 1, true);
  }
}

TEST("small, for compute-sanitizer") {
  for (const int32_t architecture : {0, 80})
    for (const int64_t d : {64, 128, 256}) {
      const Shape s{150, 1300, 6, 2, d};
      check_attention(Context(s, plans_of(s, adaptive(PageRule::kShare, 0.05f)), Data::kPlain, architecture), "small          ", 1, true);
      check_attention(Context(s, {dense(), a_shape(100, 300), adaptive(PageRule::kMass, 0.2f), dense(), dense(), dense()}, Data::kPlain, architecture), "small, mixed   ", 2);
      check_attention(Context(s, {dense(), slash(10, 100), blocks(5), dense(), dense(), dense()}, Data::kPlain, architecture), "small, patterns", 2);
    }
}

TEST("queries beyond 2^31 elements") {
  if (gpu::properties().free_memory_bytes < int64_t{14} << 30) SKIP("this needs 14 GiB of the GPU's memory");
  const int64_t tokens = 262400, heads = 64, d = 128, length = tokens, pages = length / kPageTokens, page = kernels::page_elements(1, 1, d, true);
  CHECK(tokens * heads * d > int64_t{1} << 31);
  std::mt19937_64 random(3);
  const std::vector<uint16_t> some = gpu::random_bf16(size_t{1} << 20, random);
  const auto fill = [&](const gpu::Memory<uint16_t>& memory) {
    const gpu::Memory<uint16_t> seed(some);
    for (size_t done = 0; done < memory.bytes(); done += seed.bytes())
      GPU(copy_on_device(reinterpret_cast<char*>(memory.get()) + done, seed.get(), std::min(seed.bytes(), memory.bytes() - done), gpu::stream()));
    GPU(synchronize(gpu::stream()));
  };
  const gpu::Memory<uint16_t> q(static_cast<size_t>(tokens * heads * d)), out(static_cast<size_t>(tokens * heads * d)), kv(static_cast<size_t>(pages * page));
  fill(q);
  fill(kv);
  std::vector<void*> pointers;
  for (int64_t i = 0; i < pages; ++i) pointers.push_back(kv.get() + i * page);
  const gpu::Memory<void*> table(pointers);
  HeadGroup plan = a_shape(0, 128);
  plan.heads = static_cast<int32_t>(heads);
  const gpu::Memory<HeadGroup> groups(std::vector<HeadGroup>{plan});
  kernels::SparseArgs args{q.get(), out.get(), {table.get(), 1, d, 0, 1}, tokens, heads, 0, groups.get(), 1, kernels::sparse_tiles(tokens, heads), nullptr, nullptr, gpu::properties().multiprocessors};
  const gpu::Memory<uint8_t> workspace(static_cast<size_t>(kernels::sparse_layout(args).bytes));
  args.workspace = workspace.get();
  GPU(sparse_index(args, gpu::stream()));
  GPU(sparse_attention(args, gpu::stream()));
  // The last token's last head, with the last 128 keys: the last page as a whole.
  std::vector<uint16_t> got(static_cast<size_t>(d)), query(got), keys(static_cast<size_t>(2 * kPageTokens * d));
  GPU(copy_to_host(got.data(), out.get() + (tokens * heads - 1) * d, got.size() * 2, gpu::stream()));
  GPU(copy_to_host(query.data(), q.get() + (tokens * heads - 1) * d, got.size() * 2, gpu::stream()));
  GPU(copy_to_host(keys.data(), kv.get() + (pages - 1) * page, keys.size() * 2, gpu::stream()));
  GPU(synchronize(gpu::stream()));
  std::vector<double> weights, wanted(static_cast<size_t>(d), 0);
  for (int64_t t = 0; t < kPageTokens; ++t) {
    double dot = 0;
    for (int64_t i = 0; i < d; ++i) dot += gpu::at(query, static_cast<size_t>(i)) * gpu::at(keys, static_cast<size_t>(kernels::page_offset(t, i)));
    weights.push_back(std::exp(dot / std::sqrt(static_cast<double>(d))));
  }
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (int64_t t = 0; t < kPageTokens; ++t)
    for (int64_t i = 0; i < d; ++i) wanted[static_cast<size_t>(i)] += weights[static_cast<size_t>(t)] / sum * gpu::at(keys, static_cast<size_t>(kPageTokens * d + kernels::page_offset(t, i)));
  CHECK(gpu::relative_error(got, wanted) <= 5e-3);
}

TEST_MAIN()
