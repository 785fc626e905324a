// Where the GPU keeps K and V: pages as kernels/api/cache.h lays them out, in slabs that are allocated when one of their
// pages is first written and freed when none is in use.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "cuda/device.h"

namespace longview::cuda {

class CudaKvStorage final : public KvStorage {
 public:
  CudaKvStorage(const Device& device, const KvShape& shape, int64_t pages);

  int64_t pages() const override { return static_cast<int64_t>(used_.size()); }
  int64_t page_bytes() const override { return page_bytes_; }
  static int64_t page_bytes(const KvShape& shape);
  std::string layout() const override { return layout_; }

  // The page's memory, taken now if it is not there. Throws kOutOfMemory.
  void* page(int32_t slot);
  void discard(int32_t slot);
  // Changes whenever a page was taken anew or discarded: then page() must be asked again, which also counts it as in use.
  int64_t generation() const { return generation_; }

 private:
  const Device& device_;
  int64_t page_bytes_ = 0, slab_pages_ = 0, generation_ = 0;
  std::string layout_;
  std::vector<bool> used_;  // by page
  std::vector<Buffer> slabs_;
  std::vector<int64_t> used_in_slab_;
};

}  // namespace longview::cuda
