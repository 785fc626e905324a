#include "cpu/kv_pages.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/half.h"

namespace longview::cpu {

namespace {

constexpr int64_t kSystemPage = 4096;  // whole system pages, so that one KV page can be given back by itself

int64_t element_bytes(const KvShape& shape) { return shape.format == KvFormat::kFloat32 ? 4 : 2; }

}  // namespace

int64_t CpuKvStorage::page_bytes(const KvShape& shape) {
  return round_up(shape.layers * shape.kv_heads * (shape.head_dim + round_up(shape.head_dim, 16)) * kPageTokens * element_bytes(shape), kSystemPage);
}

CpuKvStorage::CpuKvStorage(const KvShape& shape, int64_t pages) : shape_(shape), pages_(pages) {
  width_ = round_up(shape.head_dim, 16);
  key_bytes_ = shape.head_dim * kPageTokens * element_bytes(shape);
  value_bytes_ = width_ * kPageTokens * element_bytes(shape);
  page_bytes_ = page_bytes(shape);
  void* address = mmap(nullptr, static_cast<size_t>(page_bytes_ * pages), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  LONGVIEW_CHECK(address != MAP_FAILED, kOutOfMemory,
                 "The KV state needs %.1f GB of address space and the system refused it (%s). Use a smaller context or a smaller model.",
                 static_cast<double>(page_bytes_ * pages) / 1e9, std::strerror(errno));
  data_ = static_cast<std::byte*>(address);
}

std::string CpuKvStorage::layout() const {
  return format("cpu-%s-%lldx%lldx%lld", shape_.format == KvFormat::kFloat32 ? "f32" : "bf16", static_cast<long long>(shape_.layers),
                static_cast<long long>(shape_.kv_heads), static_cast<long long>(shape_.head_dim));
}

CpuKvStorage::~CpuKvStorage() { munmap(data_, static_cast<size_t>(page_bytes_ * pages_)); }

void CpuKvStorage::write(int32_t page, int64_t layer, int64_t head, int64_t slot, const float* k, const float* v) const {
  const int64_t d = shape_.head_dim;
  if (shape_.format == KvFormat::kFloat32) {
    auto* keys_out = reinterpret_cast<float*>(keys(page, layer, head));
    auto* values_out = reinterpret_cast<float*>(values(page, layer, head));
    for (int64_t i = 0; i < d; ++i) keys_out[i * kPageTokens + slot] = k[i];
    std::memcpy(values_out + slot * width_, v, static_cast<size_t>(d) * sizeof(float));
    return;
  }
  auto* keys_out = reinterpret_cast<uint16_t*>(keys(page, layer, head));
  auto* values_out = reinterpret_cast<uint16_t*>(values(page, layer, head));
  for (int64_t i = 0; i < d; ++i) keys_out[((i / 2) * kPageTokens + slot) * 2 + i % 2] = float_to_bf16(k[i]);
  for (int64_t i = 0; i < d; ++i) values_out[((slot / 2) * width_ + i) * 2 + slot % 2] = float_to_bf16(v[i]);
}

void CpuKvStorage::copy(int32_t from, int32_t to) const {
  std::memcpy(data_ + to * page_bytes_, data_ + from * page_bytes_, static_cast<size_t>(page_bytes_));
}

void CpuKvStorage::fill(int32_t page, std::span<const std::byte> from) const {
#ifdef MADV_POPULATE_WRITE
  // The system's pages at once instead of one fault each: a third faster. A kernel that cannot does it as it can.
  (void)madvise(data_ + page * page_bytes_, static_cast<size_t>(page_bytes_), MADV_POPULATE_WRITE);
#endif
  std::memcpy(data_ + page * page_bytes_, from.data(), static_cast<size_t>(page_bytes_));
}

void CpuKvStorage::discard(int32_t page) const { madvise(data_ + page * page_bytes_, static_cast<size_t>(page_bytes_), MADV_DONTNEED); }

}  // namespace longview::cpu
