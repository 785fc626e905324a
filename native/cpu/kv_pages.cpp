#include "cpu/kv_pages.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/half.h"
#include "cpu/q4.h"
#include "os/memory.h"

namespace longview::cpu {

namespace {

int64_t blocks_of_page(const KvShape& shape) { return shape.mean_tokens > 0 ? kPageTokens / shape.mean_tokens : 0; }

int64_t value_width_of(const KvShape& shape) { return round_up(shape.head_dim, 16); }

// Of one head's K, of a row of `dims` for each token.
int64_t row_bytes(KvFormat format, int64_t dims) {
  switch (format) {
    case KvFormat::kFloat32: return dims * 4;
    case KvFormat::kQ8: return dims;
    case KvFormat::kQ4: return dims / 2;
    default: return dims * 2;
  }
}

// K and V of one head, their means, spreads, scales and reference.
int64_t head_bytes(const KvShape& shape) {
  const int64_t d = shape.head_dim, width = value_width_of(shape), blocks = blocks_of_page(shape);
  const int64_t means = blocks * ((d + width) * (shape.format == KvFormat::kFloat32 ? 4 : 2) + static_cast<int64_t>(sizeof(float)));
  const int64_t scales = is_coded(shape.format) ? 2 * q8_blocks(d) * kPageTokens * 2 : 0, reference = shape.format == KvFormat::kQ4 ? 2 * d : 0;
  return kPageTokens * (row_bytes(shape.format, d) + row_bytes(shape.format, width)) + means + scales + reference;
}

// Where a dim's code lies in q4: of K the row and of V the byte, and the bits.
struct Place {
  int64_t at, shift;
};
Place key_place(int64_t dim) { return {dim / 4 * 2 + dim % 2, dim % 4 / 2 * 4}; }
Place value_place(int64_t dim, int64_t width) { return {dim % (width / 2), dim / (width / 2) * 4}; }
void put_code(uint8_t& byte, int64_t shift, uint8_t code) { byte = static_cast<uint8_t>((byte & (0xf0 >> shift)) | (code << shift)); }
float code_at(uint8_t byte, int64_t shift) { return static_cast<float>((byte >> shift & 15) - 8); }

}  // namespace

int64_t CpuKvStorage::page_bytes(const KvShape& shape) {
  // Whole pages of the system, so that one KV page can be given back by itself.
  return round_up(shape.layers * shape.kv_heads * head_bytes(shape), os::page_size());
}

CpuKvStorage::CpuKvStorage(const KvShape& shape, int64_t pages) : shape_(shape), pages_(pages) {
  LONGVIEW_CHECK(shape.format != KvFormat::kE4M3, kInvalidArgument, "The CPU does not keep the KV state in 8-bit floats.");
  LONGVIEW_CHECK(shape.format != KvFormat::kQ4 || (shape.head_dim % 4 == 0 && shape.head_dim <= kMostQ4Dims), kInvalidArgument, "Heads of %lld dimensions are not kept in 4 bits. Set longview.cache.format to q8.",
                 static_cast<long long>(shape.head_dim));
  width_ = value_width_of(shape);
  page_blocks_ = blocks_of_page(shape);
  if (coded()) scale_rows_ = q8_blocks(shape.head_dim);
  key_bytes_ = kPageTokens * row_bytes(shape.format, shape.head_dim);
  value_bytes_ = kPageTokens * row_bytes(shape.format, width_);
  head_bytes_ = head_bytes(shape);
  page_bytes_ = page_bytes(shape);
  data_ = os::reserve(page_bytes_ * pages);
  LONGVIEW_CHECK(data_, kOutOfMemory,
                 "The KV state needs %.1f GB of address space and the system refused it (%s). Use a smaller context or a smaller model.",
                 static_cast<double>(page_bytes_ * pages) / 1e9, std::strerror(errno));
}

std::string CpuKvStorage::layout() const {
  const std::string means = shape_.mean_tokens > 0 ? format("-spread%lld", static_cast<long long>(shape_.mean_tokens)) : "";
  return format("cpu-%s-%lldx%lldx%lld%s", name(shape_.format), static_cast<long long>(shape_.layers),
                static_cast<long long>(shape_.kv_heads), static_cast<long long>(shape_.head_dim), means.c_str());
}

CpuKvStorage::~CpuKvStorage() { os::release(data_, page_bytes_ * pages_); }

void CpuKvStorage::write(int32_t page, int64_t layer, int64_t head, int64_t slot, const float* k, const float* v) const {
  if (shape_.format == KvFormat::kQ8) return write_q8(page, layer, head, slot, k, v);
  if (shape_.format == KvFormat::kQ4) return write_q4(page, layer, head, slot, k, v);
  write_row(keys(page, layer, head), values(page, layer, head), kPageTokens, slot, k, v);
}

void CpuKvStorage::write_means(int32_t page, int64_t layer, int64_t head, int64_t block, const float* k, const float* v, float key_spread) const {
  key_spreads(page, layer, head)[block] = key_spread;
  write_row(key_means(page, layer, head), value_means(page, layer, head), page_blocks_, block, k, v);
}

void CpuKvStorage::write_q8(int32_t page, int64_t layer, int64_t head, int64_t slot, const float* k, const float* v) const {
  auto* keys_out = reinterpret_cast<int8_t*>(keys(page, layer, head));
  auto* values_out = reinterpret_cast<int8_t*>(values(page, layer, head));
  uint16_t *key_scales_out = key_scales(page, layer, head) + slot, *value_scales_out = value_scales(page, layer, head) + slot;
  std::array<int8_t, kQ8Block> codes;
  for (int64_t first = 0; first < shape_.head_dim; first += kQ8Block) {
    const int64_t n = std::min(kQ8Block, shape_.head_dim - first), scale_at = first / kQ8Block * kPageTokens;
    key_scales_out[scale_at] = quantize_q8(k + first, n, codes.data());
    for (int64_t i = 0; i < n; ++i) keys_out[((first + i) / 2 * kPageTokens + slot) * 2 + i % 2] = codes[static_cast<size_t>(i)];
    value_scales_out[scale_at] = quantize_q8(v + first, n, codes.data());
    for (int64_t i = 0; i < n; ++i) values_out[(slot / 2 * width_ + first + i) * 2 + slot % 2] = codes[static_cast<size_t>(i)];
  }
}

void CpuKvStorage::write_q4(int32_t page, int64_t layer, int64_t head, int64_t slot, const float* k, const float* v) const {
  auto* keys_out = reinterpret_cast<uint8_t*>(keys(page, layer, head)) + slot;
  auto* values_out = reinterpret_cast<uint8_t*>(values(page, layer, head)) + slot * (width_ / 2);
  const uint16_t* base = reference(page, layer, head);
  uint16_t *key_scales_out = key_scales(page, layer, head) + slot, *value_scales_out = value_scales(page, layer, head) + slot;
  std::array<float, kQ8Block> apart;
  std::array<uint8_t, kQ8Block> codes;
  for (int64_t first = 0; first < shape_.head_dim; first += kQ8Block) {
    const int64_t n = std::min(kQ8Block, shape_.head_dim - first), scale_at = first / kQ8Block * kPageTokens;
    for (int64_t i = 0; i < n; ++i) apart[static_cast<size_t>(i)] = k[first + i] - bf16_to_float(base[first + i]);
    key_scales_out[scale_at] = quantize_q4(apart.data(), n, codes.data());
    for (int64_t i = 0; i < n; ++i) {
      const Place place = key_place(first + i);
      put_code(keys_out[place.at * kPageTokens], place.shift, codes[static_cast<size_t>(i)]);
    }
    value_scales_out[scale_at] = quantize_q4(v + first, n, codes.data());
    for (int64_t i = 0; i < n; ++i) {
      const Place place = value_place(first + i, width_);
      put_code(values_out[place.at], place.shift, codes[static_cast<size_t>(i)]);
    }
  }
}

void CpuKvStorage::write_row(std::byte* keys_at, std::byte* values_at, int64_t columns, int64_t slot, const float* k, const float* v) const {
  const int64_t d = shape_.head_dim;
  if (shape_.format == KvFormat::kFloat32) {
    auto* keys_out = reinterpret_cast<float*>(keys_at);
    auto* values_out = reinterpret_cast<float*>(values_at);
    for (int64_t i = 0; i < d; ++i) keys_out[i * columns + slot] = k[i];
    std::memcpy(values_out + slot * width_, v, static_cast<size_t>(d) * sizeof(float));
    return;
  }
  auto* keys_out = reinterpret_cast<uint16_t*>(keys_at);
  auto* values_out = reinterpret_cast<uint16_t*>(values_at);
  for (int64_t i = 0; i < d; ++i) keys_out[((i / 2) * columns + slot) * 2 + i % 2] = float_to_bf16(k[i]);
  for (int64_t i = 0; i < d; ++i) values_out[((slot / 2) * width_ + i) * 2 + slot % 2] = float_to_bf16(v[i]);
}

void CpuKvStorage::read(int32_t page, int64_t layer, int64_t head, int64_t slot, float* k, float* v) const {
  const int64_t d = shape_.head_dim;
  if (shape_.format == KvFormat::kFloat32) {
    const auto* keys_in = reinterpret_cast<const float*>(keys(page, layer, head));
    for (int64_t i = 0; i < d; ++i) k[i] = keys_in[i * kPageTokens + slot];
    std::memcpy(v, reinterpret_cast<const float*>(values(page, layer, head)) + slot * width_, static_cast<size_t>(d) * sizeof(float));
    return;
  }
  if (shape_.format == KvFormat::kQ8) {
    const auto* key_codes = reinterpret_cast<const int8_t*>(keys(page, layer, head));
    const auto* value_codes = reinterpret_cast<const int8_t*>(values(page, layer, head));
    const uint16_t *key_scale = key_scales(page, layer, head) + slot, *value_scale = value_scales(page, layer, head) + slot;
    for (int64_t i = 0; i < d; ++i) {
      const int64_t scale_at = i / kQ8Block * kPageTokens;
      k[i] = static_cast<float>(key_codes[(i / 2 * kPageTokens + slot) * 2 + i % 2]) * bf16_to_float(key_scale[scale_at]);
      v[i] = static_cast<float>(value_codes[(slot / 2 * width_ + i) * 2 + slot % 2]) * bf16_to_float(value_scale[scale_at]);
    }
    return;
  }
  if (shape_.format == KvFormat::kQ4) {
    const auto* key_codes = reinterpret_cast<const uint8_t*>(keys(page, layer, head)) + slot;
    const auto* value_codes = reinterpret_cast<const uint8_t*>(values(page, layer, head)) + slot * (width_ / 2);
    const uint16_t *key_scale = key_scales(page, layer, head) + slot, *value_scale = value_scales(page, layer, head) + slot, *base = reference(page, layer, head);
    for (int64_t i = 0; i < d; ++i) {
      const int64_t scale_at = i / kQ8Block * kPageTokens;
      const Place key = key_place(i), value = value_place(i, width_);
      k[i] = code_at(key_codes[key.at * kPageTokens], key.shift) * bf16_to_float(key_scale[scale_at]) + bf16_to_float(base[i]);
      v[i] = code_at(value_codes[value.at], value.shift) * bf16_to_float(value_scale[scale_at]);
    }
    return;
  }
  const auto* keys_in = reinterpret_cast<const uint16_t*>(keys(page, layer, head));
  const auto* values_in = reinterpret_cast<const uint16_t*>(values(page, layer, head));
  for (int64_t i = 0; i < d; ++i) k[i] = bf16_to_float(keys_in[((i / 2) * kPageTokens + slot) * 2 + i % 2]);
  for (int64_t i = 0; i < d; ++i) v[i] = bf16_to_float(values_in[((slot / 2) * width_ + i) * 2 + slot % 2]);
}

void CpuKvStorage::read_key_mean(int32_t page, int64_t layer, int64_t head, int64_t block, float* k) const {
  const std::byte* means = key_means(page, layer, head);
  for (int64_t i = 0; i < shape_.head_dim; ++i)
    k[i] = shape_.format == KvFormat::kFloat32 ? reinterpret_cast<const float*>(means)[i * page_blocks_ + block]
                                               : bf16_to_float(reinterpret_cast<const uint16_t*>(means)[((i / 2) * page_blocks_ + block) * 2 + i % 2]);
}

void CpuKvStorage::copy(int32_t from, int32_t to) const {
  std::memcpy(data_ + to * page_bytes_, data_ + from * page_bytes_, static_cast<size_t>(page_bytes_));
}

void CpuKvStorage::fill(int32_t page, std::span<const std::byte> from) const {
  os::populate(data_ + page * page_bytes_, page_bytes_);  // a third faster
  std::memcpy(data_ + page * page_bytes_, from.data(), static_cast<size_t>(page_bytes_));
}

void CpuKvStorage::discard(int32_t page) const { os::give_back(data_ + page * page_bytes_, page_bytes_); }

}  // namespace longview::cpu
