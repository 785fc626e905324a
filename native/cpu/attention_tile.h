// A tile of query rows on its way through the keys: online softmax over whatever keys it visits, in strips of up to 128.
// Dense and sparse attention differ only in which keys they make it visit.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <span>

#include "cpu/kernels.h"
#include "cpu/kv_pages.h"
#include "cpu/scratch.h"

namespace longview::cpu {

// The score of what a row does not see.
constexpr float kHidden = -std::numeric_limits<float>::infinity();

// Which layer, and what its rows see beside the causal rule: AttentionLayer (backend/backend.h) as the CPU holds it.
struct CpuAttentionLayer {
  int64_t index, span = 0;
  const float* sinks = nullptr;
};

// What a head's sink weighs in a sum of weights relative to `maximum`, which is in log2 units; 0 where there are none.
inline float sink_weight(const float* sinks, int64_t head, float maximum) { return sinks ? std::exp2(sinks[head] * std::numbers::log2e_v<float> - maximum) : 0.0f; }

// One layer's K and V of one KV head, in the order of positions.
struct HeadPages {
  const CpuKvStorage& storage;
  std::span<const int32_t> page_slots;
  int64_t layer, kv_head;
};

// Row r is position first_position + r / joined * stride of query head first_head + r % joined; all of the same KV head.
struct TileRows {
  const float* q;        // [tokens of the chunk, heads * head_dim]
  int64_t heads;
  int64_t first_head, joined;
  int64_t first_token, tokens;  // rows of q
  int64_t first_position;       // absolute, of first_token
  int64_t stride = 1;           // from one row of q to the next

  int64_t count() const { return tokens * joined; }
  int64_t position(int64_t row) const { return first_position + row / joined * stride; }
  int64_t end_position() const { return position(count() - 1) + 1; }
  // Where a row of d dims lies in q, and in an output of its shape.
  int64_t offset(int64_t row, int64_t d) const { return ((first_token + row / joined * stride) * heads + first_head + row % joined) * d; }
};

class AttentionTile {
 public:
  static constexpr int64_t kStrip = 128;

  // Loads the queries. `bf16`: products in bf16 (pages must hold it, or codes). The scratch belongs to the tile while it lives.
  AttentionTile(const Kernels& kernels, bool bf16, const HeadPages& pages, const TileRows& rows, Scratch& scratch);

  // From here on a row sees only the first `sink` keys and the last `window` up to itself.
  void limit(int64_t sink, int64_t window);
  // Visits keys begin .. end - 1, each row as far as it sees them. Never the same key twice.
  void visit(int64_t begin, int64_t end);
  // The same for single keys, all of them before the tile's first position.
  void visit_columns(std::span<const int32_t> columns);
  // Everything visited is in output, maximum and sum only after this.
  void flush();
  // Divides by the sums, with what sinks [heads] add to them (null: none), and stores to out [tokens of the chunk, heads * head_dim].
  void write(float* out, const float* sinks) const;

  // scores[r, j] = q_r . b_j in log2 units, for rows first .. first + count - 1 and b a right-hand matrix of kernels.h.
  void score(int64_t first, int64_t count, const void* b, int64_t ldb, int64_t n, float* scores, int64_t ld) const;

  // Scores of the same rows with every key of a page, masked or not; scores [count, ld], ld at least a page.
  void score_page(int64_t first, int64_t count, int64_t page, float* scores, int64_t ld);
  // And with the keys of every page before the tile's end, side by side.
  void score_all(int64_t first, int64_t count, float* scores, int64_t ld);

  // |q_r|^2 in the same units: the variance of row r's scores of keys whose dims vary by 1.
  float squared_query(int64_t row) const;

  const TileRows& rows() const { return rows_; }
  bool bf16() const { return bf16_; }
  float* output() { return output_; }    // [count, value_width], not yet divided
  float* maximum() { return maximum_; }  // [count]
  float* sum() { return sum_; }          // [count]

 private:
  // A part of a strip: its keys lie together in memory.
  struct Segment {
    const std::byte *keys, *values;
    int64_t at, tokens;        // columns of the strip
    int64_t position;          // of its first column
    int64_t begin, end;        // positions that were asked for
    bool masked;
    int32_t coded_slot = -1;   // of pages of codes: the one that the columns are widened from; keys and values are not set
    int64_t coded_from = 0;    // its first column
  };
  const float* query(int64_t row) const;  // as it was given
  void add(const Segment& segment);
  void mask(const Segment& segment);
  // Copies key `at` of a page to column `to` of the gathered ones; codes are widened.
  void gather(int32_t slot, int64_t at, int64_t to);

  const Kernels& kernels_;
  const bool bf16_;
  const HeadPages pages_;
  const TileRows rows_;
  const int64_t d_, width_, d_padded_;
  const float scale_;  // of the queries: scores come out in log2 units
  int64_t sink_ = 0, window_ = 0;  // window 0: no limit
  float *queries_, *scores_, *output_, *maximum_, *sum_, *widened_;
  uint16_t* weights_;
  std::byte* gathered_;  // K and V of single keys, as in a page
  std::array<Segment, kStrip / 16> segments_;
  size_t segment_count_ = 0;
  int64_t filled_ = 0;
};

}  // namespace longview::cpu
