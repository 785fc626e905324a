#include "cpu/mass_samples.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "cpu/sum_of.h"

namespace longview::cpu {
namespace {

// Of a block with less the sampled rows know nothing.
constexpr float kLeastMass = 1e-30f;
// What the few rows find counts half for the others, in log2, and e times at most. Measured on the built-in model: whole gains lose more
// where blocks of much mass are left out, since a mean of V says little of these.
constexpr float kTrust = 0.5f;
constexpr auto kMostSampledGain = static_cast<float>(std::numbers::log2e);

// Rows on their way through the pages: what each has found in a page's blocks is relative to its maximum up to there.
struct BlockSums {
  int64_t block_tokens, seen;  // seen: pages
  float *scores, *blocks, *maxima;  // [rows, page], [rows, seen, blocks of a page], [rows, seen]

  int64_t page_blocks() const { return kPageTokens / block_tokens; }
  static int64_t floats(int64_t rows, int64_t seen, int64_t page_blocks) { return rows * (kPageTokens + seen * (page_blocks + 1)); }
  BlockSums(int64_t rows, int64_t seen_pages, int64_t tokens, float* room) : block_tokens(tokens), seen(seen_pages), scores(room), blocks(scores + rows * kPageTokens), maxima(blocks + rows * seen * page_blocks()) {}

  void add(const Kernels& kernels, AttentionTile& tile, int64_t page) const {
    const int64_t rows = tile.rows().count();
    tile.score_page(0, rows, page, scores, kPageTokens);
    for (int64_t r = 0; r < rows; ++r) {
      float* row = scores + r * kPageTokens;
      const int64_t visible = std::clamp<int64_t>(tile.rows().position(r) + 1 - page * kPageTokens, 0, kPageTokens);
      std::fill(row + visible, row + kPageTokens, kHidden);
      kernels.softmax_step(row, kPageTokens, tile.maximum() + r, tile.sum() + r, nullptr, 0);
      maxima[r * seen + page] = tile.maximum()[r];
      for (int64_t b = 0; b < page_blocks(); ++b) of_page(r, page)[b] = static_cast<float>(sum_of(row, b * block_tokens, (b + 1) * block_tokens));
    }
  }
  float* of_page(int64_t row, int64_t page) const { return blocks + (row * seen + page) * page_blocks(); }
};

}  // namespace

void MassSamples::begin(int64_t first_position, int64_t tokens, int64_t heads, int64_t block_tokens, int64_t probed) {
  first_position_ = first_position;
  tokens_ = tokens;
  heads_ = heads;
  blocks_ = (first_position + tokens) / block_tokens;
  block_tokens_ = block_tokens;
  spans_ = (tokens + kSampleSpan - 1) / kSampleSpan;
  probed_ = probed;
  padded_blocks_ = pages_of(first_position + tokens) * (kPageTokens / block_tokens);
  masses_.assign(static_cast<size_t>(spans_ * heads * blocks_), 0.0f);
  gains_.assign(masses_.size(), 0.0f);
  probed_weights_.resize(static_cast<size_t>(spans_ * heads * padded_blocks_));
  probed_softmax_.resize(static_cast<size_t>(spans_ * heads * 2));
}

RowWeights MassSamples::probed(int64_t head, int64_t token) const {
  const int64_t row = token / kSampleSpan * heads_ + head;
  const float* softmax = probed_softmax_.data() + row * 2;
  return {softmax[0], softmax[1], {probed_weights_.data() + row * padded_blocks_, static_cast<size_t>(padded_blocks_)}};
}

void MassSamples::measure(const Kernels& kernels, bool bf16, const HeadPages& pages, const GatheredMeans& means, const float* q, int64_t group, int64_t span, Scratch& tile_scratch, Scratch& probed_scratch, Scratch& sums) {
  const int64_t first = span * kSampleSpan, tokens = std::min(kSampleSpan, tokens_ - first), samples = std::max<int64_t>(tokens / kSampleStride, 1);
  const int64_t token = first + std::min(kSampleStride, tokens) - 1, first_head = pages.kv_head * group, probe = probed_token(span);
  AttentionTile tile(kernels, bf16, pages, {q, heads_, first_head, group, token, samples, first_position_ + token, kSampleStride}, tile_scratch);
  AttentionTile probed(kernels, bf16, pages, {q, heads_, first_head, group, probe, 1, first_position_ + probe}, probed_scratch);

  const int64_t rows = tile.rows().count(), seen = pages_of(tile.rows().end_position()), page_blocks = kPageTokens / block_tokens_, ld = means.ld();
  const int64_t sampled_floats = BlockSums::floats(rows, seen, page_blocks);
  float* room = sums.get<float>(sampled_floats + BlockSums::floats(group, seen, page_blocks) + (rows + 1) * ld);
  const BlockSums sampled(rows, seen, block_tokens_, room), of_probed(group, seen, block_tokens_, room + sampled_floats);
  float* mean_weights = room + sampled_floats + BlockSums::floats(group, seen, page_blocks);
  float* expected = mean_weights + rows * ld;
  for (int64_t page = 0; page < seen; ++page) {
    sampled.add(kernels, tile, page);
    of_probed.add(kernels, probed, page);
  }
  for (int64_t h = 0; h < group; ++h) {
    const int64_t row = span * heads_ + first_head + h;
    float *weights = probed_weights_.data() + row * padded_blocks_, *softmax = probed_softmax_.data() + row * 2;
    softmax[0] = probed.maximum()[h];
    softmax[1] = probed.sum()[h];
    for (int64_t page = 0; page < seen; ++page) {
      const float factor = std::exp2(of_probed.maxima[h * seen + page] - softmax[0]);
      for (int64_t b = 0; b < page_blocks; ++b) weights[page * page_blocks + b] = factor * of_probed.of_page(h, page)[b];
    }
  }

  // Beside what a row finds in its blocks, what it would if every key was its block's mean.
  tile.score(0, rows, means.keys(0), ld, ld, mean_weights, ld);
  for (int64_t h = 0; h < group; ++h) {
    float* mass = masses_.data() + (span * heads_ + first_head + h) * blocks_;
    std::fill_n(expected, ld, 0.0f);
    for (int64_t r = h; r < rows; r += group) {
      const int64_t whole = (tile.rows().position(r) + 1) / block_tokens_;  // of blocks_
      const float share = 1.0f / (tile.sum()[r] * static_cast<float>(samples));
      for (int64_t page = 0; page < seen; ++page) {
        const float factor = std::exp2(sampled.maxima[r * seen + page] - tile.maximum()[r]) * share;
        for (int64_t b = page * page_blocks; b < std::min((page + 1) * page_blocks, whole); ++b) mass[b] += factor * sampled.of_page(r, page)[b - page * page_blocks];
      }
      float *row = mean_weights + r * ld, maximum = tile.maximum()[r], total = 0;
      std::fill(row + whole, row + ld, kHidden);
      kernels.softmax_step(row, ld, &maximum, &total, nullptr, 0);
      const float factor = std::exp2(maximum - tile.maximum()[r]) * share * static_cast<float>(block_tokens_);
      for (int64_t b = 0; b < whole; ++b) expected[b] += factor * row[b];
    }
    float* gain = gains_.data() + (span * heads_ + first_head + h) * blocks_;
    for (int64_t b = 0; b < blocks_; ++b)
      if (mass[b] > kLeastMass) gain[b] = std::min(kTrust * std::log2(mass[b] / expected[b]), kMostSampledGain);
  }
}

}  // namespace longview::cpu
