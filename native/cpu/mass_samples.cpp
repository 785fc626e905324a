#include "cpu/mass_samples.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/sum_of.h"

namespace longview::cpu {

void MassSamples::begin(int64_t first_position, int64_t tokens, int64_t heads, int64_t block_tokens) {
  first_position_ = first_position;
  tokens_ = tokens;
  heads_ = heads;
  blocks_ = (first_position + tokens) / block_tokens;
  block_tokens_ = block_tokens;
  spans_ = (tokens + kSampleSpan - 1) / kSampleSpan;
  masses_.assign(static_cast<size_t>(spans_ * heads * blocks_), 0.0f);
}

std::span<const float> MassSamples::of(int64_t head, int64_t token) const {
  return {masses_.data() + (token / kSampleSpan * heads_ + head) * blocks_, static_cast<size_t>(blocks_)};
}

void MassSamples::measure(const Kernels& kernels, bool bf16, const HeadPages& pages, const float* q, int64_t group, int64_t span, Scratch& tile_scratch, Scratch& sums) {
  const int64_t first = span * kSampleSpan, tokens = std::min(kSampleSpan, tokens_ - first), samples = std::max<int64_t>(tokens / kSampleStride, 1);
  const int64_t token = first + std::min(kSampleStride, tokens) - 1, first_head = pages.kv_head * group;
  AttentionTile tile(kernels, bf16, pages, {q, heads_, first_head, group, token, samples, first_position_ + token, kSampleStride}, tile_scratch);

  // Page by page: a block's sum is relative to the row's maximum up to its page.
  const int64_t rows = tile.rows().count(), seen = pages_of(tile.rows().end_position()), page_blocks = kPageTokens / block_tokens_;
  float* scores = sums.get<float>(rows * (kPageTokens + seen * (page_blocks + 1)));
  float* blocks = scores + rows * kPageTokens;
  float* maxima = blocks + rows * seen * page_blocks;
  for (int64_t page = 0; page < seen; ++page) {
    tile.score_page(0, rows, page, scores, kPageTokens);
    for (int64_t r = 0; r < rows; ++r) {
      float* row = scores + r * kPageTokens;
      const int64_t visible = std::clamp<int64_t>(tile.rows().position(r) + 1 - page * kPageTokens, 0, kPageTokens);
      std::fill(row + visible, row + kPageTokens, -std::numeric_limits<float>::infinity());
      kernels.softmax_step(row, kPageTokens, tile.maximum() + r, tile.sum() + r, nullptr, 0);
      maxima[r * seen + page] = tile.maximum()[r];
      for (int64_t b = 0; b < page_blocks; ++b) blocks[(r * seen + page) * page_blocks + b] = static_cast<float>(sum_of(row, b * block_tokens_, (b + 1) * block_tokens_));
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    float* mass = masses_.data() + (span * heads_ + first_head + r % group) * blocks_;
    const float share = 1.0f / (tile.sum()[r] * static_cast<float>(samples));
    for (int64_t page = 0; page < seen; ++page) {
      const float factor = std::exp2(maxima[r * seen + page] - tile.maximum()[r]) * share;
      for (int64_t b = page * page_blocks; b < std::min((page + 1) * page_blocks, blocks_); ++b) mass[b] += factor * blocks[r * seen * page_blocks + b];
    }
  }
}

}  // namespace longview::cpu
