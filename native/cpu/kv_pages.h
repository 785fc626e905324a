// Where the CPU keeps K and V. A page slot holds all layers; inside, each layer and KV head has a K block and a V block:
//   float32:  K [head_dim][128 tokens],                V [128 tokens][width]
//   bf16:     K [head_dim / 2][128 tokens][2 dims],    V [64 token pairs][width][2 tokens]
//   q8:       as bf16 with int8 codes in the place of values, and behind them the scales of every token's blocks of 32 dims,
//             K [blocks][128 tokens], V [blocks][128 tokens], in bf16
//   q4:       two codes a byte: K [head_dim / 2][128 tokens], rows 2 i and 2 i + 1 with dims 4 i and 4 i + 1 in the low bits, 4 i + 2 and 4 i + 3
//             in the high ones; V [128 tokens][width / 2], the first half of the dims in the low bits. Behind them scales as q8 has them,
//             and the reference of the page's keys (page_references.h), bf16 [head_dim]
// so that both products of attention read them as the right-hand matrix of kernels.h, without repacking (q8 and q4: after
// widening, coded_pages.h). width is head_dim rounded up to 16; what was never written is zero. Where the shape asks for means,
// they follow V in the same layouts, with a page's 128 / mean_tokens blocks in the place of its tokens; q8 and q4 keep them in bf16.
// Behind them lies the spread of each block's keys: their variance, mean over the dims, in float32.
#pragma once

#include "backend/backend.h"

namespace longview::cpu {

// Whether pages of a format hold codes, which are widened before products.
constexpr bool is_coded(KvFormat format) { return format == KvFormat::kQ8 || format == KvFormat::kQ4; }

// Of heads that are kept in 4 bits.
constexpr int64_t kMostQ4Dims = 256;

constexpr int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

class CpuKvStorage final : public KvStorage {
 public:
  // Reserves address space; throws kOutOfMemory with the numbers.
  CpuKvStorage(const KvShape& shape, int64_t pages);
  ~CpuKvStorage() override;

  int64_t pages() const override { return pages_; }
  int64_t page_bytes() const override { return page_bytes_; }
  static int64_t page_bytes(const KvShape& shape);
  // Every instruction set reads the same layout.
  std::string layout() const override;

  const KvShape& shape() const { return shape_; }
  int64_t value_width() const { return width_; }
  bool coded() const { return is_coded(shape_.format); }
  // Of values that are no codes, and of means.
  int64_t element_bytes() const { return shape_.format == KvFormat::kFloat32 ? 4 : 2; }
  // Whether attention's products may be in bf16: what is kept in float32 is not rounded.
  bool narrow() const { return shape_.format != KvFormat::kFloat32; }
  // Blocks of a page that have means; 0 where none are kept.
  int64_t page_blocks() const { return page_blocks_; }
  std::byte* keys(int32_t page, int64_t layer, int64_t head) const {
    return data_ + page * page_bytes_ + (layer * shape_.kv_heads + head) * head_bytes_;
  }
  std::byte* values(int32_t page, int64_t layer, int64_t head) const { return keys(page, layer, head) + key_bytes_; }
  std::byte* key_means(int32_t page, int64_t layer, int64_t head) const { return values(page, layer, head) + value_bytes_; }
  std::byte* value_means(int32_t page, int64_t layer, int64_t head) const { return key_means(page, layer, head) + page_blocks_ * shape_.head_dim * element_bytes(); }
  float* key_spreads(int32_t page, int64_t layer, int64_t head) const {
    return reinterpret_cast<float*>(value_means(page, layer, head) + page_blocks_ * width_ * element_bytes());
  }
  // Of codes.
  uint16_t* key_scales(int32_t page, int64_t layer, int64_t head) const {
    return reinterpret_cast<uint16_t*>(key_spreads(page, layer, head) + page_blocks_);
  }
  uint16_t* value_scales(int32_t page, int64_t layer, int64_t head) const { return key_scales(page, layer, head) + scale_rows_ * kPageTokens; }
  // Of q4, which is written before the page's keys.
  uint16_t* reference(int32_t page, int64_t layer, int64_t head) const { return value_scales(page, layer, head) + scale_rows_ * kPageTokens; }

  void write(int32_t page, int64_t layer, int64_t head, int64_t slot, const float* k, const float* v) const;
  void read(int32_t page, int64_t layer, int64_t head, int64_t slot, float* k, float* v) const;
  void read_key_mean(int32_t page, int64_t layer, int64_t head, int64_t block, float* k) const;
  void write_means(int32_t page, int64_t layer, int64_t head, int64_t block, const float* k, const float* v, float key_spread) const;
  void copy(int32_t from, int32_t to) const;
  void discard(int32_t page) const;
  // Takes a page's bytes from elsewhere.
  void fill(int32_t page, std::span<const std::byte> from) const;
  std::span<std::byte> bytes(int32_t page) const { return {data_ + page * page_bytes_, static_cast<size_t>(page_bytes_)}; }

 private:
  void write_q8(int32_t page, int64_t layer, int64_t head, int64_t slot, const float* k, const float* v) const;
  void write_q4(int32_t page, int64_t layer, int64_t head, int64_t slot, const float* k, const float* v) const;
  void write_row(std::byte* keys_at, std::byte* values_at, int64_t columns, int64_t slot, const float* k, const float* v) const;

  KvShape shape_;
  int64_t pages_ = 0, width_ = 0, page_blocks_ = 0, scale_rows_ = 0, key_bytes_ = 0, value_bytes_ = 0, head_bytes_ = 0, page_bytes_ = 0;
  std::byte* data_ = nullptr;
};

}  // namespace longview::cpu
