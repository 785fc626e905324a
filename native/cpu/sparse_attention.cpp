#include "cpu/sparse_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <utility>

#include "base/half.h"
#include "cpu/sum_of.h"
#include "sparse/a_shape.h"
#include "sparse/adaptive.h"
#include "sparse/block_sparse.h"

namespace longview::cpu {
namespace {

// Positions of an adaptive tile: few rows choose fewer keys. Measured on the built-in model at 32,768 tokens, 16 keep no fewer
// for the same accuracy, and 64 rows that choose blocks of 128 lose two answers in a hundred more.
constexpr int64_t kAdaptivePositions = 32;
// Of the other patterns': MInference's block of rows.
constexpr int64_t kPositions = sparse::kSlashBlock;
// log2 of how much more a block of keys may weigh than as many keys at its mean. Beyond that scores are no normal distribution.
constexpr float kMostGain = 8.66f;
// One tile in so many compares its last row with dense attention; of adaptive ones the samples do, one in each of their spans.
constexpr int64_t kProbeTiles = 16;

int64_t positions_of(Pattern pattern) { return pattern == Pattern::kAdaptive ? kAdaptivePositions : kPositions; }

// Heads of a KV group whose keys do not depend on their queries go together. Adaptive heads choose each for itself: that keeps
// fewer keys than a choice for all of them.
bool joinable(Pattern pattern) { return pattern == Pattern::kDense || pattern == Pattern::kAShape; }

}  // namespace

struct SparseAttention::Job {
  const float* q;
  int64_t tokens, heads;
  const CpuAttentionLayer& layer;
  const CpuKvStorage& storage;
  std::span<const int32_t> page_slots;
  int64_t first_position;
  std::span<const HeadPlan> plans;
  float* out;
  int64_t group;

  HeadPages pages(int64_t kv_head) const { return {storage, page_slots, layer.index, kv_head}; }
};

struct SparseAttention::Item {
  int64_t first_head, joined, first_token, tokens;
};

// The keys that a tile visits, and the blocks that stand in by their means.
struct SparseAttention::Choice {
  sparse::KeySet keys;
  int64_t begin = 0;           // first block that was a candidate
  int64_t means = 0;           // candidates that were not visited
  bool probed = false;
  std::vector<float> weights;  // if probed and there are means, [candidates] of the tile's last row: 2^(score - its maximum), 0 for visited blocks
};

SparseAttention::SparseAttention(const Kernels& kernels, Precision precision, ThreadPool& pool)
    : kernels_(kernels), bf16_(kernels.gemm_bf16 && precision != Precision::kFloat32), pool_(pool), threads_(static_cast<size_t>(pool.threads())) {}

void SparseAttention::run(const float* q, int64_t tokens, int64_t heads, const CpuAttentionLayer& layer, const CpuKvStorage& storage, std::span<const int32_t> page_slots,
                          int64_t first_position, std::span<const HeadPlan> plans, float* out) {
  const int64_t kv_heads = storage.shape().kv_heads;
  const Job job{q, tokens, heads, layer, storage, page_slots, first_position, plans, out, heads / kv_heads};
  const auto uses = [](std::span<const HeadPlan> some, Pattern pattern) { return std::any_of(some.begin(), some.end(), [&](const HeadPlan& plan) { return plan.pattern == pattern; }); };
  const bool bf16 = bf16_ && storage.narrow();

  if (uses(plans, Pattern::kAdaptive) || uses(plans, Pattern::kBlockSparse)) {
    means_.resize(static_cast<size_t>(kv_heads));
    const int64_t blocks = (first_position + tokens) / kMeanTokens;
    pool_.parallel_for(kv_heads, [&](int64_t head, int) { means_[static_cast<size_t>(head)].gather(kernels_, bf16, job.pages(head), blocks); });
  }
  if (uses(plans, Pattern::kAdaptive)) {
    samples_.begin(first_position, tokens, heads, kMeanTokens, kAdaptivePositions - 1);
    pool_.parallel_for(kv_heads * samples_.spans(), [&](int64_t item, int index) {
      const int64_t kv_head = item % kv_heads;
      if (!uses(plans.subspan(static_cast<size_t>(kv_head * job.group), static_cast<size_t>(job.group)), Pattern::kAdaptive)) return;
      Thread& thread = threads_[static_cast<size_t>(index)];
      samples_.measure(kernels_, bf16, job.pages(kv_head), means_[static_cast<size_t>(kv_head)], q, job.group, item / kv_heads, thread.tile, thread.probed, thread.probe);
    });
  }
  if (uses(plans, Pattern::kVerticalSlash)) {
    indices_.resize(static_cast<size_t>(heads));
    pool_.parallel_for(heads, [&](int64_t head, int thread) {
      if (plans[static_cast<size_t>(head)].pattern == Pattern::kVerticalSlash) index_head(job, head, threads_[static_cast<size_t>(thread)]);
    });
  }

  // A KV head's items together, so that its keys stay in the last-level cache. Of these longest first: the last positions, then the ones before.
  std::vector<Item> items;
  for (int64_t head = 0; head < heads;) {
    const HeadPlan& plan = plans[static_cast<size_t>(head)];
    int64_t joined = 1;
    while (joinable(plan.pattern) && (head + joined) % job.group != 0 && plans[static_cast<size_t>(head + joined)] == plan) ++joined;
    const int64_t step = positions_of(plan.pattern);
    for (int64_t first = 0; first < tokens; first += step) items.push_back({head, joined, first, std::min(step, tokens - first)});
    head += joined;
  }
  std::stable_sort(items.begin(), items.end(), [&](const Item& a, const Item& b) {
    return std::pair(a.first_head / job.group, -a.first_token) < std::pair(b.first_head / job.group, -b.first_token);
  });

  for (Thread& thread : threads_) thread.coverage.assign(static_cast<size_t>(heads), {});
  pool_.parallel_for(static_cast<int64_t>(items.size()), [&](int64_t item, int thread) { run_item(job, items[static_cast<size_t>(item)], threads_[static_cast<size_t>(thread)]); });
  coverage_.resize(static_cast<size_t>(storage.shape().layers * heads));
  for (const Thread& thread : threads_)
    for (int64_t head = 0; head < heads; ++head) coverage_[static_cast<size_t>(layer.index * heads + head)] += thread.coverage[static_cast<size_t>(head)];
}

void SparseAttention::take_coverage(std::span<HeadCoverage> out) {
  std::fill(out.begin(), out.end(), HeadCoverage{});
  std::copy_n(coverage_.begin(), std::min(out.size(), coverage_.size()), out.begin());
  coverage_.clear();
}

void SparseAttention::run_item(const Job& job, const Item& item, Thread& thread) {
  const HeadPlan& plan = job.plans[static_cast<size_t>(item.first_head)];
  const int64_t first = job.first_position + item.first_token;
  const bool bf16 = bf16_ && job.storage.narrow();
  AttentionTile tile(kernels_, bf16, job.pages(item.first_head / job.group), {job.q, job.heads, item.first_head, item.joined, item.first_token, item.tokens, first}, thread.tile);
  Choice choice;
  if (plan.pattern == Pattern::kAdaptive) choice.probed = samples_.is_probed(item.first_token + item.tokens - 1);
  else choice.probed = plan.pattern != Pattern::kDense && item.first_token / kPositions % kProbeTiles == 0;
  switch (plan.pattern) {
    case Pattern::kDense: choice.keys.ranges = {{0, first + item.tokens}}; break;
    case Pattern::kAShape: choice.keys = sparse::a_shape_keys(plan, first, first + item.tokens); break;
    case Pattern::kVerticalSlash: choice.keys = sparse::vertical_slash_keys(indices_[static_cast<size_t>(item.first_head)], first); break;
    case Pattern::kBlockSparse: choice.keys = block_sparse(job, plan, tile); break;
    case Pattern::kAdaptive: adaptive(job, plan, tile, choice, thread); break;
  }
  if (plan.pattern != Pattern::kAdaptive) visit(tile, choice.keys);
  count(item, first, choice, thread);
  if (choice.probed) {
    const auto heads = std::span(thread.coverage).subspan(static_cast<size_t>(item.first_head), static_cast<size_t>(item.joined));
    if (plan.pattern == Pattern::kAdaptive) heads[0].covered += covered_by_blocks(tile, choice);
    else add_covered_by_keys(tile, choice.keys, thread, heads);
    for (HeadCoverage& head : heads) ++head.probes;
  }
  tile.write(job.out, job.layer.sinks);
}

void SparseAttention::visit(AttentionTile& tile, const sparse::KeySet& keys) const {
  tile.limit(keys.sink, keys.window);
  for (const sparse::KeyRange& range : keys.ranges) tile.visit(range.begin, range.end);
  if (!keys.columns.empty()) tile.visit_columns(keys.columns);
  tile.flush();
}

// Keys and means that each row was multiplied with.
void SparseAttention::count(const Item& item, int64_t first_position, const Choice& choice, Thread& thread) const {
  double visited = 0, causal = 0;
  for (int64_t position = first_position; position < first_position + item.tokens; ++position) {
    visited += static_cast<double>(static_cast<int64_t>(choice.keys.columns.size()) + choice.means);
    for (const sparse::KeyRange& range : choice.keys.ranges) {
      int64_t seen = std::max<int64_t>(std::min(range.end, position + 1) - range.begin, 0);
      if (choice.keys.window > 0) {
        const int64_t from = std::max(range.begin, choice.keys.sink), to = std::min(range.end, position + 1 - choice.keys.window);
        seen -= std::max<int64_t>(to - from, 0);
      }
      visited += static_cast<double>(seen);
    }
    causal += static_cast<double>(position + 1);
  }
  for (int64_t h = item.first_head; h < item.first_head + item.joined; ++h) {
    thread.coverage[static_cast<size_t>(h)].visited += visited;
    thread.coverage[static_cast<size_t>(h)].causal += causal;
  }
}

void SparseAttention::adaptive(const Job& job, const HeadPlan& plan, AttentionTile& tile, Choice& choice, Thread& thread) {
  const TileRows& rows = tile.rows();
  sparse::Candidates blocks = sparse::adaptive_candidates(plan, rows.first_position, kMeanTokens);
  blocks.begin = round_up(blocks.begin, 2);  // V's means lie in pairs
  const int64_t candidates = blocks.end - blocks.begin, count = rows.count(), width = job.storage.value_width();
  if (candidates <= 0) {
    choice.keys.ranges = {{0, rows.end_position()}};
    return visit(tile, choice.keys);
  }
  // Every block that all rows see whole, as its mean key and their spread: the softmax over these alone says which ones hold mass.
  // Were a row's scores of a block's keys normal with variance v in nats, their mean weight would be e^(v / 2) times that of the mean.
  const GatheredMeans& means = means_[static_cast<size_t>(rows.first_head / job.group)];
  const float* spreads = means.key_spreads().data();
  const int64_t whole = rows.first_position / kMeanTokens, ld = round_up(whole, 32) + 32;
  float* scores = thread.means.get<float>(2 * count * ld + count * ld / 2 + count + ld);
  float* shares = scores + count * ld;
  auto* weights_bf16 = reinterpret_cast<uint16_t*>(shares + count * ld);
  float* inverse = shares + count * ld + count * ld / 2;
  float* mass = inverse + count;
  tile.score(0, count, means.keys(0), means.ld(), ld, scores, ld);
  for (int64_t r = 0; r < count; ++r) {
    std::fill(scores + r * ld + whole, scores + (r + 1) * ld, kHidden);
    const float gain = tile.squared_query(r) * static_cast<float>(std::numbers::ln2 / 2);
    inverse[r] = 1.0f / (kernels_.weigh_means(scores + r * ld, spreads, gain, kMostGain, ld, shares + r * ld) * static_cast<float>(count));
  }
  kernels_.gemm_f32(1, ld, count, inverse, count, shares, ld, mass, ld, false);
  // Half of the say have the rows that look at every key.
  const std::span<const float> sampled = samples_.masses(rows.first_head, rows.first_token);
  for (int64_t j = blocks.begin; j < blocks.end; ++j) mass[j] = (mass[j] + sampled[static_cast<size_t>(j)]) / 2;
  thread.keep.resize(static_cast<size_t>(candidates));
  sparse::adaptive_select(plan, {mass + blocks.begin, static_cast<size_t>(candidates)}, thread.keep);

  std::vector<sparse::KeyRange>& ranges = choice.keys.ranges;
  ranges.push_back({0, blocks.begin * kMeanTokens});
  const auto add = [&](int64_t begin, int64_t end) {
    if (ranges.back().end == begin) ranges.back().end = end;
    else ranges.push_back({begin, end});
  };
  std::vector<int32_t>& kept = thread.kept;
  kept.clear();
  for (int64_t j = 0; j < candidates; ++j) {
    if (!thread.keep[static_cast<size_t>(j)]) continue;
    kept.push_back(static_cast<int32_t>(j));
    add((blocks.begin + j) * kMeanTokens, (blocks.begin + j + 1) * kMeanTokens);
  }
  add(blocks.end * kMeanTokens, rows.end_position());
  visit(tile, choice.keys);

  // The others in the same online softmax: each mean is as many keys as its block has, and those by as much more as the sampled rows say.
  choice.means = candidates - static_cast<int64_t>(kept.size());
  if (choice.means == 0) return;
  const int64_t n = round_up(candidates, 32);
  const float* gains = samples_.gains(rows.first_head, rows.first_token).data();
  constexpr auto kLength = static_cast<float>(kMeanTokens);
  for (int64_t r = 0; r < count; ++r) {
    float* row = scores + r * ld + blocks.begin;
    kernels_.add(row, gains + blocks.begin, candidates);
    std::fill(row + candidates, row + n, kHidden);
    for (const int32_t j : kept) row[j] = kHidden;
    float *output = tile.output() + r * width, total = tile.sum()[r] / kLength;
    if (tile.bf16()) kernels_.softmax_step_bf16(row, n, tile.maximum() + r, &total, output, width, weights_bf16 + r * n);
    else kernels_.softmax_step(row, n, tile.maximum() + r, &total, output, width);
    tile.sum()[r] = total * kLength;
  }
  if (tile.bf16())
    kernels_.gemm_bf16(count, width, n, weights_bf16, n, static_cast<const uint32_t*>(means.values(blocks.begin)), width, tile.output(), width, true);
  else
    kernels_.gemm_f32(count, width, n, scores + blocks.begin, ld, static_cast<const float*>(means.values(blocks.begin)), width, tile.output(), width, true);
  choice.begin = blocks.begin;
  if (!choice.probed) return;
  const float* last = scores + (count - 1) * ld + blocks.begin;
  choice.weights.resize(static_cast<size_t>(candidates));
  for (int64_t j = 0; j < candidates; ++j) choice.weights[static_cast<size_t>(j)] = tile.bf16() ? bf16_to_float(weights_bf16[(count - 1) * n + j]) : last[j];
}

sparse::KeySet SparseAttention::block_sparse(const Job& job, const HeadPlan& plan, const AttentionTile& tile) const {
  const TileRows& rows = tile.rows();
  const int64_t d = job.storage.shape().head_dim, blocks = rows.first_position / sparse::kPoolTokens, parts = sparse::kPoolTokens / kMeanTokens;
  // The pooled query against the pooled keys: the score of a block of 64 is the mean of the scores of its two means of 32.
  std::vector<float> pooled(static_cast<size_t>(d), 0.0f);
  for (int64_t t = 0; t < rows.tokens; ++t) {
    const float* row = rows.q + (rows.first_token + t) * rows.heads * d + rows.first_head * d;
    for (int64_t i = 0; i < d; ++i) pooled[static_cast<size_t>(i)] += row[i] / static_cast<float>(rows.tokens);
  }
  std::vector<float> scores(static_cast<size_t>(blocks), 0.0f), key(static_cast<size_t>(d));
  const HeadPages pages = job.pages(rows.first_head / job.group);
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t position = b * sparse::kPoolTokens + part * kMeanTokens;
      job.storage.read_key_mean(pages.page_slots[static_cast<size_t>(position / kPageTokens)], pages.layer, pages.kv_head, position % kPageTokens / kMeanTokens, key.data());
      scores[static_cast<size_t>(b)] += kernels_.dot(pooled.data(), key.data(), d);
    }
  return sparse::block_sparse_keys(plan, rows.end_position(), scores);
}

void SparseAttention::index_head(const Job& job, int64_t head, Thread& thread) {
  const int64_t rows = std::min(sparse::kIndexRows, job.tokens), end = job.first_position + job.tokens;
  const bool bf16 = bf16_ && job.storage.narrow();
  AttentionTile tile(kernels_, bf16, job.pages(head / job.group), {job.q, job.heads, head, 1, job.tokens - rows, rows, end - rows}, thread.tile);
  const int64_t ld = round_up(end, kPageTokens);
  float* scores = thread.index.get<float>(rows * ld);
  tile.score_all(0, rows, scores, ld);
  indices_[static_cast<size_t>(head)] = sparse::vertical_slash_index(job.plans[static_cast<size_t>(head)], rows, end, job.first_position > 0, [&](int64_t row) {
    float* p = scores + row * ld;
    const int64_t seen = end - rows + row + 1;
    const float maximum = *std::max_element(p, p + seen);
    float sum = 0;
    for (int64_t j = 0; j < seen; ++j) sum += p[j] = std::exp2(p[j] - maximum);
    for (int64_t j = 0; j < seen; ++j) p[j] /= sum;
    std::fill(p + seen, p + end, 0.0f);
    return std::span<const float>(p, static_cast<size_t>(end));
  });
}

// The last position of the tile, by dense attention: how much of each head's mass lies where the tile's own attention put it.
void SparseAttention::add_covered_by_keys(AttentionTile& tile, const sparse::KeySet& keys, Thread& thread, std::span<HeadCoverage> heads) const {
  const auto joined = static_cast<int64_t>(heads.size());
  const int64_t first = tile.rows().count() - joined, end = tile.rows().end_position(), padded = round_up(end, kPageTokens);
  float* scores = thread.probe.get<float>(joined * padded);
  tile.score_all(first, joined, scores, padded);
  for (int64_t h = 0; h < joined; ++h) {
    float *p = scores + h * padded, maximum = kHidden, sum = 0;
    std::fill(p + end, p + padded, kHidden);
    kernels_.softmax_step(p, padded, &maximum, &sum, nullptr, 0);
    double covered = 0;
    const auto add = [&](int64_t begin, int64_t to) { covered += sum_of(p, begin, to); };
    for (const sparse::KeyRange& range : keys.ranges) {
      const int64_t to = std::min(range.end, end);
      if (keys.window > 0) {
        add(range.begin, std::min(to, keys.sink));
        add(std::max({range.begin, keys.sink, end - keys.window}), to);
      } else {
        add(range.begin, to);
      }
    }
    for (const int32_t column : keys.columns) covered += static_cast<double>(p[column]);
    heads[static_cast<size_t>(h)].covered += covered * share_of(tile, first + h, maximum, sum);
  }
}

// The same by what the samples have found of that row. A block that stood in by its mean counts as a whole: a key that its mean
// hides is what is looked for.
double SparseAttention::covered_by_blocks(AttentionTile& tile, const Choice& choice) const {
  const TileRows& rows = tile.rows();
  const int64_t last = rows.count() - 1;
  const RowWeights row = samples_.probed(rows.first_head, rows.first_token + rows.tokens - 1);
  double covered = 0;
  for (const sparse::KeyRange& range : choice.keys.ranges)
    covered += sum_of(row.blocks.data(), range.begin / kMeanTokens, (std::min(range.end, rows.end_position()) + kMeanTokens - 1) / kMeanTokens);
  covered *= share_of(tile, last, row.maximum, row.sum);
  const double scale = static_cast<double>(kMeanTokens) / static_cast<double>(tile.sum()[last]);
  for (size_t b = 0; b < choice.weights.size(); ++b) {
    const float weight = choice.weights[b];
    if (weight > 0) covered += std::min(static_cast<double>(row.blocks[static_cast<size_t>(choice.begin) + b] / row.sum), static_cast<double>(weight) * scale);
  }
  return covered;
}

// Of weights relative to `maximum` whose sum in dense attention is `sum`: what part of the row's softmax 1 is, if the tile gave its keys no more.
double SparseAttention::share_of(AttentionTile& tile, int64_t row, float maximum, float sum) const {
  // What a visited key weighs in the tile, beside its weight in dense attention.
  const double ratio = std::exp2(static_cast<double>(maximum - tile.maximum()[row])) * static_cast<double>(sum) / static_cast<double>(tile.sum()[row]);
  return std::min(1.0, ratio) / static_cast<double>(sum);
}

}  // namespace longview::cpu
