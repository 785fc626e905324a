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

}  // namespace

void MassSamples::begin(int64_t first_position, int64_t tokens, int64_t heads, int64_t block_tokens) {
  first_position_ = first_position;
  tokens_ = tokens;
  heads_ = heads;
  blocks_ = (first_position + tokens) / block_tokens;
  block_tokens_ = block_tokens;
  spans_ = (tokens + kSampleSpan - 1) / kSampleSpan;
  masses_.assign(static_cast<size_t>(spans_ * heads * blocks_), 0.0f);
  gains_.assign(masses_.size(), 0.0f);
}

void MassSamples::measure(const Kernels& kernels, bool bf16, const HeadPages& pages, const GatheredMeans& means, const float* q, int64_t group, int64_t span, Scratch& tile_scratch, Scratch& sums) {
  const int64_t first = span * kSampleSpan, tokens = std::min(kSampleSpan, tokens_ - first), samples = std::max<int64_t>(tokens / kSampleStride, 1);
  const int64_t token = first + std::min(kSampleStride, tokens) - 1, first_head = pages.kv_head * group;
  AttentionTile tile(kernels, bf16, pages, {q, heads_, first_head, group, token, samples, first_position_ + token, kSampleStride}, tile_scratch);

  // Page by page: a block's sum is relative to the row's maximum up to its page.
  const int64_t rows = tile.rows().count(), seen = pages_of(tile.rows().end_position()), page_blocks = kPageTokens / block_tokens_, ld = means.ld();
  float* scores = sums.get<float>(rows * (kPageTokens + seen * (page_blocks + 1) + ld) + ld);
  float* blocks = scores + rows * kPageTokens;
  float* maxima = blocks + rows * seen * page_blocks;
  float* mean_weights = maxima + rows * seen;
  float* expected = mean_weights + rows * ld;
  for (int64_t page = 0; page < seen; ++page) {
    tile.score_page(0, rows, page, scores, kPageTokens);
    for (int64_t r = 0; r < rows; ++r) {
      float* row = scores + r * kPageTokens;
      const int64_t visible = std::clamp<int64_t>(tile.rows().position(r) + 1 - page * kPageTokens, 0, kPageTokens);
      std::fill(row + visible, row + kPageTokens, kHidden);
      kernels.softmax_step(row, kPageTokens, tile.maximum() + r, tile.sum() + r, nullptr, 0);
      maxima[r * seen + page] = tile.maximum()[r];
      for (int64_t b = 0; b < page_blocks; ++b) blocks[(r * seen + page) * page_blocks + b] = static_cast<float>(sum_of(row, b * block_tokens_, (b + 1) * block_tokens_));
    }
  }

  // Beside what a row finds in its blocks, what it would if every key was its block's mean.
  tile.score(0, rows, means.keys(0), ld, ld, mean_weights, ld);
  for (int64_t h = 0; h < group; ++h) {
    float* mass = masses_.data() + (span * heads_ + first_head + h) * blocks_;
    std::fill_n(expected, ld, 0.0f);
    for (int64_t r = h; r < rows; r += group) {
      const int64_t whole = std::min((tile.rows().position(r) + 1) / block_tokens_, blocks_);
      const float share = 1.0f / (tile.sum()[r] * static_cast<float>(samples));
      for (int64_t page = 0; page < seen; ++page) {
        const float factor = std::exp2(maxima[r * seen + page] - tile.maximum()[r]) * share;
        for (int64_t b = page * page_blocks; b < std::min((page + 1) * page_blocks, whole); ++b) mass[b] += factor * blocks[r * seen * page_blocks + b];
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
