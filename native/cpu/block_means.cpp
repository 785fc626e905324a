#include "cpu/block_means.h"

#include <algorithm>
#include <cstring>

#include "base/half.h"

namespace longview::cpu {

void make_block_means(const HeadPages& pages, int64_t block, const float* k, const float* v, int64_t stride, int64_t first_position) {
  const KvShape& shape = pages.storage.shape();
  const auto d = static_cast<size_t>(shape.head_dim);
  const int64_t begin = block * shape.mean_tokens;
  const int32_t slot = pages.page_slots[static_cast<size_t>(begin / kPageTokens)];
  std::vector<float> key_mean(d, 0.0f), value_mean(d, 0.0f), key(d), value(d);
  double squares = 0;
  for (int64_t position = begin; position < begin + shape.mean_tokens; ++position) {
    const float *key_row = key.data(), *value_row = value.data();
    if (position < first_position) {
      pages.storage.read(slot, pages.layer, pages.kv_head, position % kPageTokens, key.data(), value.data());
    } else {
      key_row = k + (position - first_position) * stride;
      value_row = v + (position - first_position) * stride;
    }
    for (size_t i = 0; i < d; ++i) key_mean[i] += key_row[i];
    for (size_t i = 0; i < d; ++i) squares += static_cast<double>(key_row[i]) * static_cast<double>(key_row[i]);
    for (size_t i = 0; i < d; ++i) value_mean[i] += value_row[i];
  }
  const float inverse = 1.0f / static_cast<float>(shape.mean_tokens);
  for (float& x : key_mean) x *= inverse;
  for (float& x : value_mean) x *= inverse;
  double square_of_mean = 0;
  for (const float x : key_mean) square_of_mean += static_cast<double>(x) * static_cast<double>(x);
  const double spread = std::max(squares / static_cast<double>(shape.mean_tokens) - square_of_mean, 0.0) / static_cast<double>(d);
  pages.storage.write_means(slot, pages.layer, pages.kv_head, begin % kPageTokens / shape.mean_tokens, key_mean.data(), value_mean.data(), static_cast<float>(spread));
}

void GatheredMeans::gather(const Kernels& kernels, bool bf16, const HeadPages& pages, int64_t blocks) {
  const CpuKvStorage& storage = pages.storage;
  const int64_t d = storage.shape().head_dim, page_blocks = storage.page_blocks();
  const bool stored_pairs = storage.narrow();
  bf16_ = bf16;
  width_ = storage.value_width();
  ld_ = round_up(blocks, 32) + 32;
  // Gathered as 4-byte columns: a pair of dims in bf16, one dim in float32.
  const int64_t key_rows = stored_pairs ? d / 2 : d, value_rows = stored_pairs ? ld_ / 2 : ld_;
  const auto length = static_cast<float>(storage.shape().mean_tokens);
  Scratch& pairs = stored_pairs && !bf16 ? pairs_ : keys_;
  auto* keys = pairs.get<uint32_t>(key_rows * ld_ + value_rows * width_);
  uint32_t* values = keys + key_rows * ld_;
  std::memset(keys, 0, static_cast<size_t>(key_rows * ld_ + value_rows * width_) * sizeof(uint32_t));
  spreads_.resize(static_cast<size_t>(std::max(ld_, round_up(blocks, page_blocks))));
  for (int64_t first = 0; first < blocks; first += page_blocks) {
    const int32_t slot = pages.page_slots[static_cast<size_t>(first / page_blocks)];
    const auto* k = reinterpret_cast<const uint32_t*>(storage.key_means(slot, pages.layer, pages.kv_head));
    const auto* v = reinterpret_cast<const uint32_t*>(storage.value_means(slot, pages.layer, pages.kv_head));
    for (int64_t i = 0; i < key_rows; ++i) std::memcpy(keys + i * ld_ + first, k + i * page_blocks, static_cast<size_t>(page_blocks) * sizeof(uint32_t));
    std::copy_n(storage.key_spreads(slot, pages.layer, pages.kv_head), page_blocks, spreads_.begin() + first);
    const int64_t rows = stored_pairs ? page_blocks / 2 : page_blocks, at = stored_pairs ? first / 2 : first;
    if (stored_pairs) {
      auto* out = reinterpret_cast<uint16_t*>(values + at * width_);
      const auto* in = reinterpret_cast<const uint16_t*>(v);
      for (int64_t i = 0; i < 2 * rows * width_; ++i) out[i] = float_to_bf16(bf16_to_float(in[i]) * length);  // exact: a power of two
    } else {
      auto* out = reinterpret_cast<float*>(values + at * width_);
      for (int64_t i = 0; i < rows * width_; ++i) out[i] = reinterpret_cast<const float*>(v)[i] * length;
    }
  }
  key_data_ = keys;
  value_data_ = values;
  if (!stored_pairs || bf16) return;
  auto* wide_keys = keys_.get<float>(d * ld_);
  auto* wide_values = values_.get<float>(ld_ * width_);
  kernels.widen_pairs(keys, d / 2, ld_, ld_, wide_keys, ld_);
  kernels.widen_pairs(values, ld_ / 2, width_, width_, wide_values, width_);
  key_data_ = wide_keys;
  value_data_ = wide_values;
}

const void* GatheredMeans::keys(int64_t first_block) const { return static_cast<const uint32_t*>(key_data_) + first_block; }

const void* GatheredMeans::values(int64_t first_block) const {
  return static_cast<const uint32_t*>(value_data_) + (bf16_ ? first_block / 2 : first_block) * width_;
}

}  // namespace longview::cpu
