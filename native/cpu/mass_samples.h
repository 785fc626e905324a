// What blocks of keys hold of a head's attention, by a few rows of a chunk that look at every key. A block's mean does not show the
// one key in it that is looked for; these rows do, and what they look for, the rows around them mostly look for too. So they also tell how
// much more than its mean a block weighs that is not visited.
#pragma once

#include <span>
#include <vector>

#include "cpu/attention_tile.h"
#include "cpu/block_means.h"

namespace longview::cpu {

// Of so many rows the last is sampled, and so many share their samples. Measured on the built-in model at 32,768 tokens: more samples
// find no more, nor do spans of 1,024; spans of 128 find less.
constexpr int64_t kSampleStride = 64, kSampleSpan = 512;

// What a row's keys weigh relative to the largest, 2^(score - maximum): their sum, and that of each block, of which the last may be seen in part.
struct RowWeights {
  float maximum, sum;
  std::span<const float> blocks;
};

class MassSamples {
 public:
  // For a chunk of `tokens` rows and all its heads. Keys are measured by blocks of `block_tokens`, which divides a page; only whole ones.
  // Of each span row `probed` (the last, where it has no more) is measured too, and has no say in the others' masses.
  void begin(int64_t first_position, int64_t tokens, int64_t heads, int64_t block_tokens, int64_t probed);

  // Parts of the chunk whose rows share samples.
  int64_t spans() const { return spans_; }
  // Measures a span for the heads of one KV group. q: as Attention::run has it; means: of all whole blocks. Spans and groups can be measured
  // at the same time.
  void measure(const Kernels& kernels, bool bf16, const HeadPages& pages, const GatheredMeans& means, const float* q, int64_t group, int64_t span, Scratch& tile, Scratch& probed_tile, Scratch& sums);

  // By block, for row `token` of the chunk: shares of the softmax, mean over the sampled rows near it. A row has none in a block it sees in part.
  std::span<const float> masses(int64_t head, int64_t token) const { return of(masses_, head, token); }
  // In log2, how much more a block weighs for the rows of the span than if all its keys were their mean.
  std::span<const float> gains(int64_t head, int64_t token) const { return of(gains_, head, token); }

  bool is_probed(int64_t token) const { return token == probed_token(token / kSampleSpan); }
  RowWeights probed(int64_t head, int64_t token) const;

 private:
  std::span<const float> of(const std::vector<float>& values, int64_t head, int64_t token) const {
    return {values.data() + (token / kSampleSpan * heads_ + head) * blocks_, static_cast<size_t>(blocks_)};
  }

  int64_t probed_token(int64_t span) const { return span * kSampleSpan + std::min(probed_, tokens_ - span * kSampleSpan - 1); }

  int64_t first_position_ = 0, tokens_ = 0, heads_ = 0, blocks_ = 0, block_tokens_ = 0, spans_ = 0, probed_ = 0, padded_blocks_ = 0;
  std::vector<float> masses_, gains_;   // [spans, heads, blocks]
  std::vector<float> probed_weights_;   // [spans, heads, padded_blocks]: of whole pages
  std::vector<float> probed_softmax_;   // [spans, heads, 2]: maximum, sum
};

}  // namespace longview::cpu
