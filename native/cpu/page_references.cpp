#include "cpu/page_references.h"

#include <algorithm>
#include <cmath>

#include "base/half.h"

namespace longview::cpu {
namespace {

constexpr int64_t kLeastKeys = 32;

}  // namespace

void write_references(const CpuKvStorage& storage, std::span<const int32_t> page_slots, int64_t layer, int64_t kv_head, const float* keys, int64_t stride, int64_t first_position, int64_t tokens) {
  const int64_t d = storage.shape().head_dim, end = first_position + tokens;
  std::vector<float> sum(static_cast<size_t>(d));
  for (int64_t page = pages_of(first_position); page < pages_of(end); ++page) {
    uint16_t* reference = storage.reference(page_slots[static_cast<size_t>(page)], layer, kv_head);
    const int64_t begin = page * kPageTokens, here = std::min(kPageTokens, end - begin);
    if (page > 0 && here < kLeastKeys) {
      std::copy_n(storage.reference(page_slots[static_cast<size_t>(page - 1)], layer, kv_head), d, reference);
      continue;
    }
    std::fill(sum.begin(), sum.end(), 0.0f);
    int64_t counted = 0;
    for (int64_t t = 0; t < here && tokens > 1; ++t) {
      const float* key = keys + (begin + t - first_position) * stride;
      if (!std::all_of(key, key + d, [](float x) { return std::isfinite(x); })) continue;
      for (int64_t i = 0; i < d; ++i) sum[static_cast<size_t>(i)] += key[i];
      ++counted;
    }
    const float share = counted > 0 ? 1.0f / static_cast<float>(counted) : 0.0f;
    for (int64_t i = 0; i < d; ++i) {
      const float mean = sum[static_cast<size_t>(i)] * share;
      reference[i] = std::isfinite(mean) ? float_to_bf16(mean) : 0;
    }
  }
}

}  // namespace longview::cpu
