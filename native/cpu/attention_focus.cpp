#include "cpu/attention_focus.h"

#include <algorithm>
#include <limits>

namespace longview::cpu {
namespace {

// Rows whose scores a thread holds at a time: 4 MB of them at 65,536 keys.
constexpr int64_t kRows = 16;

}  // namespace

AttentionFocus::AttentionFocus(const Kernels& kernels, Precision precision, ThreadPool& pool)
    : kernels_(kernels), bf16_(kernels.gemm_bf16 && precision != Precision::kFloat32), pool_(pool), threads_(static_cast<size_t>(pool.threads())) {}

void AttentionFocus::add(const float* q, int64_t tokens, int64_t heads, const CpuAttentionLayer& layer, const CpuKvStorage& storage, std::span<const int32_t> page_slots,
                         int64_t first_position, int64_t keys) {
  for (Thread& thread : threads_) thread.focus.resize(std::max(thread.focus.size(), static_cast<size_t>(keys)));
  const int64_t group = heads / storage.shape().kv_heads, parts = (tokens + kRows - 1) / kRows;
  pool_.parallel_for(heads * parts, [&](int64_t item, int index) {
    Thread& thread = threads_[static_cast<size_t>(index)];
    const int64_t head = item / parts, first = item % parts * kRows, count = std::min(kRows, tokens - first);
    const TileRows rows{q, heads, head, 1, first, count, first_position + first};
    AttentionTile tile(kernels_, bf16_ && storage.narrow(), {storage, page_slots, layer.index, head / group}, rows, thread.tile);
    const int64_t ld = round_up(rows.end_position(), kPageTokens);
    float* scores = thread.scores.get<float>(count * ld);
    tile.score_all(0, count, scores, ld);
    for (int64_t row = 0; row < count; ++row) {
      float *weights = scores + row * ld, maximum = -std::numeric_limits<float>::infinity(), sum = 0;
      std::fill(weights + rows.first_position + row + 1, weights + ld, maximum);
      kernels_.softmax_step(weights, ld, &maximum, &sum, nullptr, 0);
      sum += sink_weight(layer.sinks, head, maximum);
      const float scale = 1.0f / (sum * sum);
      for (int64_t key = 0; key < std::min(keys, rows.first_position + row + 1); ++key) thread.focus[static_cast<size_t>(key)] += scale * weights[key] * weights[key];
    }
  });
}

void AttentionFocus::take(std::span<float> out) {
  std::fill(out.begin(), out.end(), 0.0f);
  for (Thread& thread : threads_) {
    for (size_t i = 0; i < std::min(out.size(), thread.focus.size()); ++i) out[i] += thread.focus[i];
    thread.focus.clear();
  }
}

}  // namespace longview::cpu
