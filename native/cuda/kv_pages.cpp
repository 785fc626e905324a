#include "cuda/kv_pages.h"

#include <algorithm>

#include "base/error.h"

namespace longview::cuda {
namespace {

constexpr int64_t kSlabBytes = int64_t{64} << 20;

}  // namespace

kernels::PageFormat page_format(KvFormat format) {
  switch (format) {
    case KvFormat::kQ8: return kernels::PageFormat::kQ8;
    case KvFormat::kE4M3: return kernels::PageFormat::kE4M3;
    case KvFormat::kQ4: return kernels::PageFormat::kQ4;
    default: return kernels::PageFormat::kBFloat16;
  }
}

int64_t CudaKvStorage::page_bytes(const KvShape& shape) {
  return kernels::page_bytes(page_format(shape.format), shape.layers, shape.kv_heads, page_dim(shape.head_dim), shape.mean_tokens > 0);
}

CudaKvStorage::CudaKvStorage(const Device& device, const KvShape& shape, int64_t pages)
    : device_(device),
      pages_(pages),
      page_bytes_(page_bytes(shape)),
      layout_(format("cuda-%s-%lldx%lldx%lld%s", name(shape.format), static_cast<long long>(shape.layers), static_cast<long long>(shape.kv_heads), static_cast<long long>(page_dim(shape.head_dim)), shape.mean_tokens > 0 ? "-means" : "")) {
  slab_pages_ = std::max<int64_t>(1, kSlabBytes / page_bytes_);
  slabs_.resize(static_cast<size_t>((pages + slab_pages_ - 1) / slab_pages_));
}

void* CudaKvStorage::page(int32_t slot) {
  const int64_t slab = slot / slab_pages_;
  Buffer& buffer = slabs_[static_cast<size_t>(slab)];
  if (!buffer.as()) {
    const int64_t count = std::min(slab_pages_, pages() - slab * slab_pages_);
    buffer = Buffer(device_, count * page_bytes_, "more pages of the KV state");
    device_.check(device_.library().fill(buffer.as(), 0, static_cast<size_t>(buffer.bytes()), device_.stream()), "clearing pages of the KV state");
  }
  return place(buffer, slot);
}

void CudaKvStorage::clear(int32_t slot) noexcept {
  const Buffer& buffer = slabs_[static_cast<size_t>(slot / slab_pages_)];
  if (buffer.as()) device_.library().fill(place(buffer, slot), 0, static_cast<size_t>(page_bytes_), device_.stream());  // an error comes back with the next work
}

}  // namespace longview::cuda
