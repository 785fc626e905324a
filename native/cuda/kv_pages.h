// Where the GPU keeps K and V: pages as kernels/api/cache.h lays them out, in slabs that are allocated when one of their
// pages is first written. They stay for what is read next (allocating one takes as long as reading hundreds of tokens); the
// budget was reckoned with all of them.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "cuda/device.h"

namespace longview::cuda {

kernels::PageFormat page_format(KvFormat format);

// Dimensions of a head in the pages: attention has kernels for 64, 128 and 256, what is narrower has zeros behind it.
constexpr int64_t page_dim(int64_t head_dim) { return head_dim <= 64 ? 64 : head_dim <= 128 ? 128 : 256; }

class CudaKvStorage final : public KvStorage {
 public:
  CudaKvStorage(const Device& device, const KvShape& shape, int64_t pages);

  int64_t pages() const override { return pages_; }
  int64_t page_bytes() const override { return page_bytes_; }
  static int64_t page_bytes(const KvShape& shape);
  std::string layout() const override { return layout_; }

  // The page's memory, taken now if it is not there; it never moves. Throws kOutOfMemory.
  void* page(int32_t slot);
  // Zeros again where the page's memory is there, as when it was taken.
  void clear(int32_t slot) noexcept;

 private:
  char* place(const Buffer& slab, int32_t slot) const { return slab.as<char>() + slot % slab_pages_ * page_bytes_; }

  const Device& device_;
  int64_t pages_ = 0, page_bytes_ = 0, slab_pages_ = 0;
  std::string layout_;
  std::vector<Buffer> slabs_;
};

}  // namespace longview::cuda
