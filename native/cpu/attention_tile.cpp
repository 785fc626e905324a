#include "cpu/attention_tile.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "base/half.h"
#include "cpu/coded_pages.h"

namespace longview::cpu {
namespace {

constexpr int64_t kStep = 32;  // columns go through the products in whole steps

}  // namespace

AttentionTile::AttentionTile(const Kernels& kernels, bool bf16, const HeadPages& pages, const TileRows& rows, Scratch& scratch)
    : kernels_(kernels), bf16_(bf16), pages_(pages), rows_(rows), d_(pages.storage.shape().head_dim), width_(pages.storage.value_width()), d_padded_(d_ + 32), scale_(static_cast<float>(std::numbers::log2e / std::sqrt(static_cast<double>(d_)))) {
  const int64_t count = rows.count(), page = kPageTokens * (d_ + width_);
  const int64_t floats = count * (d_padded_ + kStrip + width_ + 2), weights = count * kStrip / 2;
  queries_ = scratch.get<float>(floats + weights + 2 * page);
  scores_ = queries_ + count * d_padded_;
  output_ = scores_ + count * kStrip;
  maximum_ = output_ + count * width_;
  sum_ = maximum_ + count;
  weights_ = reinterpret_cast<uint16_t*>(sum_ + count);
  widened_ = sum_ + count + weights;
  gathered_ = reinterpret_cast<std::byte*>(widened_ + page);

  auto* queries_bf16 = reinterpret_cast<uint16_t*>(queries_);
  for (int64_t r = 0; r < count; ++r) {
    const float* row = query(r);
    if (bf16) kernels.to_bf16(row, queries_bf16 + r * d_padded_, d_, scale_);
    else
      for (int64_t i = 0; i < d_; ++i) queries_[r * d_padded_ + i] = row[i] * scale_;
  }
  std::memset(output_, 0, static_cast<size_t>(count * width_) * sizeof(float));
  std::fill(maximum_, maximum_ + count, kHidden);
  std::fill(sum_, sum_ + count, 0.0f);
}

const float* AttentionTile::query(int64_t row) const { return rows_.q + rows_.offset(row, d_); }

float AttentionTile::squared_query(int64_t row) const { return kernels_.dot(query(row), query(row), d_) * scale_ * scale_; }

void AttentionTile::limit(int64_t sink, int64_t window) {
  sink_ = sink;
  window_ = window;
}

void AttentionTile::visit(int64_t begin, int64_t end) {
  end = std::min(end, rows_.end_position());
  while (begin < end) {
    const int64_t page = begin / kPageTokens, page_begin = page * kPageTokens;
    const int64_t from = (begin - page_begin) / kStep * kStep;
    const int64_t to = std::min({kPageTokens, round_up(end - page_begin, kStep), from + kStrip - filled_});
    const int32_t slot = pages_.page_slots[static_cast<size_t>(page)];
    Segment s{nullptr, nullptr, filled_, to - from, page_begin + from, begin, end, false};
    if (pages_.storage.coded()) {
      s.coded_slot = slot, s.coded_from = from;
    } else {
      s.keys = pages_.storage.keys(slot, pages_.layer, pages_.kv_head) + from * 4;  // a column: one dim in float32, or a pair of dims in bf16
      s.values = pages_.storage.values(slot, pages_.layer, pages_.kv_head) + from * width_ * pages_.storage.element_bytes();
    }
    const int64_t first_seen_by_none = rows_.first_position + 1;
    s.masked = s.position < begin || s.position + s.tokens > std::min(end, first_seen_by_none) ||
               (window_ > 0 && s.position + s.tokens > sink_ && s.position < rows_.end_position() - window_);
    add(s);
    begin = page_begin + to;
  }
}

void AttentionTile::visit_columns(std::span<const int32_t> columns) {
  flush();
  const int64_t element = bf16_ || (pages_.storage.narrow() && !pages_.storage.coded()) ? 2 : 4;
  for (size_t done = 0; done < columns.size(); done += static_cast<size_t>(kStrip)) {
    const std::span<const int32_t> part = columns.subspan(done, std::min(columns.size() - done, static_cast<size_t>(kStrip)));
    const int64_t tokens = round_up(static_cast<int64_t>(part.size()), kStep);
    std::memset(gathered_, 0, static_cast<size_t>(kPageTokens * (d_ + width_) * element));
    for (size_t c = 0; c < part.size(); ++c)
      gather(pages_.page_slots[static_cast<size_t>(part[c] / kPageTokens)], part[c] % kPageTokens, static_cast<int64_t>(c));
    // All of them lie before every row; positions count up from 0 only to mask the padding.
    add({gathered_, gathered_ + kPageTokens * d_ * element, 0, tokens, 0, 0, static_cast<int64_t>(part.size()), tokens > static_cast<int64_t>(part.size())});
    flush();
  }
}

void AttentionTile::gather(int32_t slot, int64_t at, int64_t to) {
  const CpuKvStorage& storage = pages_.storage;
  if (storage.coded()) {
    float *key = widened_, *value = widened_ + d_;
    storage.read(slot, pages_.layer, pages_.kv_head, at, key, value);
    auto* floats = reinterpret_cast<float*>(gathered_);
    auto* halves = reinterpret_cast<uint16_t*>(gathered_);
    for (int64_t i = 0; i < d_; ++i) {
      if (bf16_) {
        halves[(i / 2 * kPageTokens + to) * 2 + i % 2] = float_to_bf16(key[i]);
        halves[kPageTokens * d_ + (to / 2 * width_ + i) * 2 + to % 2] = float_to_bf16(value[i]);
      } else {
        floats[i * kPageTokens + to] = key[i];
        floats[kPageTokens * d_ + to * width_ + i] = value[i];
      }
    }
    return;
  }
  const bool wide = !storage.narrow();
  std::byte* values = gathered_ + kPageTokens * d_ * storage.element_bytes();
  const auto* k = reinterpret_cast<const uint32_t*>(storage.keys(slot, pages_.layer, pages_.kv_head));
  auto* k_out = reinterpret_cast<uint32_t*>(gathered_);
  for (int64_t i = 0; i < (wide ? d_ : d_ / 2); ++i) k_out[i * kPageTokens + to] = k[i * kPageTokens + at];
  if (wide) {
    std::memcpy(reinterpret_cast<float*>(values) + to * width_, reinterpret_cast<const float*>(storage.values(slot, pages_.layer, pages_.kv_head)) + at * width_,
                static_cast<size_t>(width_) * sizeof(float));
    return;
  }
  const auto* v = reinterpret_cast<const uint16_t*>(storage.values(slot, pages_.layer, pages_.kv_head));
  auto* v_out = reinterpret_cast<uint16_t*>(values);
  for (int64_t i = 0; i < width_; ++i) v_out[(to / 2 * width_ + i) * 2 + to % 2] = v[(at / 2 * width_ + i) * 2 + at % 2];
}

void AttentionTile::add(const Segment& segment) {
  segments_[segment_count_++] = segment;
  filled_ += segment.tokens;
  if (filled_ == kStrip) flush();
}

void AttentionTile::mask(const Segment& s) {
  for (int64_t r = 0; r < rows_.count(); ++r) {
    const int64_t position = rows_.position(r);
    float* scores = scores_ + r * kStrip + s.at;
    const int64_t lower = std::clamp<int64_t>(s.begin - s.position, 0, s.tokens);
    const int64_t upper = std::clamp<int64_t>(std::min(s.end, position + 1) - s.position, lower, s.tokens);
    std::fill(scores, scores + lower, kHidden);
    std::fill(scores + upper, scores + s.tokens, kHidden);
    if (window_ > 0) {
      const int64_t from = std::clamp<int64_t>(sink_ - s.position, 0, s.tokens), to = std::clamp<int64_t>(position + 1 - window_ - s.position, 0, s.tokens);
      if (from < to) std::fill(scores + from, scores + to, kHidden);
    }
  }
}

void AttentionTile::score(int64_t first, int64_t count, const void* b, int64_t ldb, int64_t n, float* scores, int64_t ld) const {
  if (bf16_)
    kernels_.gemm_bf16(count, n, d_, reinterpret_cast<const uint16_t*>(queries_) + first * d_padded_, d_padded_, static_cast<const uint32_t*>(b), ldb, scores, ld, false);
  else
    kernels_.gemm_f32(count, n, d_, queries_ + first * d_padded_, d_padded_, static_cast<const float*>(b), ldb, scores, ld, false);
}

void AttentionTile::score_page(int64_t first, int64_t count, int64_t page, float* scores, int64_t ld) {
  const int32_t slot = pages_.page_slots[static_cast<size_t>(page)];
  const void* keys = pages_.storage.keys(slot, pages_.layer, pages_.kv_head);
  if (pages_.storage.coded()) {
    widen_keys(kernels_, bf16_, {pages_.storage, slot, pages_.layer, pages_.kv_head}, 0, kPageTokens, widened_, kPageTokens);
    keys = widened_;
  } else if (!bf16_ && pages_.storage.shape().format == KvFormat::kBFloat16) {
    kernels_.widen_pairs(static_cast<const uint32_t*>(keys), d_ / 2, kPageTokens, kPageTokens, widened_, kStrip);
    keys = widened_;
  }
  score(first, count, keys, kPageTokens, kPageTokens, scores, ld);
}

void AttentionTile::score_all(int64_t first, int64_t count, float* scores, int64_t ld) {
  for (int64_t page = 0; page < pages_of(rows_.end_position()); ++page) score_page(first, count, page, scores + page * kPageTokens, ld);
}

void AttentionTile::flush() {
  if (filled_ == 0) return;
  const int64_t count = rows_.count();
  const std::span<const Segment> segments(segments_.data(), segment_count_);
  const bool widen = !bf16_ && pages_.storage.shape().format == KvFormat::kBFloat16;
  for (const Segment& s : segments) {
    const void* keys = s.keys;
    if (s.coded_slot >= 0) {
      widen_keys(kernels_, bf16_, {pages_.storage, s.coded_slot, pages_.layer, pages_.kv_head}, s.coded_from, s.tokens, widened_ + s.at, kStrip);
      keys = widened_ + s.at;
    } else if (widen) {
      kernels_.widen_pairs(reinterpret_cast<const uint32_t*>(s.keys), d_ / 2, s.tokens, kPageTokens, widened_ + s.at, kStrip);
      keys = widened_ + s.at;
    }
    score(0, count, keys, kPageTokens, s.tokens, scores_ + s.at, kStrip);
    if (s.masked) mask(s);
  }
  for (int64_t r = 0; r < count; ++r) {
    float *row = scores_ + r * kStrip, *output = output_ + r * width_;
    if (bf16_) kernels_.softmax_step_bf16(row, filled_, maximum_ + r, sum_ + r, output, width_, weights_ + r * kStrip);
    else kernels_.softmax_step(row, filled_, maximum_ + r, sum_ + r, output, width_);
  }
  for (const Segment& s : segments) {
    const void* values = s.values;
    if (s.coded_slot >= 0) {
      float* widened = widened_ + kPageTokens * d_ + s.at * width_;
      widen_values(kernels_, bf16_, {pages_.storage, s.coded_slot, pages_.layer, pages_.kv_head}, s.coded_from, s.tokens, widened);
      values = widened;
    }
    if (bf16_) {
      kernels_.gemm_bf16(count, width_, s.tokens, weights_ + s.at, kStrip, static_cast<const uint32_t*>(values), width_, output_, width_, true);
      continue;
    }
    if (widen) {
      float* widened = widened_ + kPageTokens * d_ + s.at * width_;
      kernels_.widen_pairs(reinterpret_cast<const uint32_t*>(s.values), s.tokens / 2, width_, width_, widened, width_);
      values = widened;
    }
    kernels_.gemm_f32(count, width_, s.tokens, scores_ + s.at, kStrip, static_cast<const float*>(values), width_, output_, width_, true);
  }
  segment_count_ = 0;
  filled_ = 0;
}

void AttentionTile::write(float* out, const float* sinks) const {
  for (int64_t r = 0; r < rows_.count(); ++r) {
    const float sum = sum_[r] + sink_weight(sinks, rows_.first_head + r % rows_.joined, maximum_[r]);
    float* row = out + rows_.offset(r, d_);
    for (int64_t i = 0; i < d_; ++i) row[i] = output_[r * width_ + i] / sum;
  }
}

}  // namespace longview::cpu
