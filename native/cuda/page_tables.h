// How kernels find K and V of a context: pointers to its pages, and a layer's pages as copies in bf16 for kernels that take no
// other format.
#pragma once

#include <vector>

#include "cuda/kv_pages.h"

namespace longview::cuda {

class PageTables {
 public:
  explicit PageTables(const Device& device) : device_(device) {}

  // The pages of the first `tokens` tokens; their pointers are sent when they changed.
  kernels::PagedKv paged(const KvShape& shape, int64_t layer, const KvPages& pages, int64_t tokens);
  // The same layer in bf16, from the page of token `first` on, until the next call. Room for all of the storage's pages is taken at once, as it
  // was planned.
  kernels::PagedKv expanded(const KvShape& shape, int64_t layer, const KvPages& pages, int64_t tokens, int64_t first = 0);

  // A KV state was made, which may lie where another one lay: pointers are sent anew.
  void forget() { storage_ = nullptr; }

  // What expanded() takes of the device's memory for each page of the storage.
  static int64_t expanded_page_bytes(const KvShape& shape);
  // Where the pointers lie, which kernels of a recorded graph go on reading.
  const void* pointers() const { return table_.as(); }

 private:
  const Device& device_;
  Buffer table_, copies_, copy_table_;
  std::vector<void*> sent_;
  // What table_ holds.
  const CudaKvStorage* storage_ = nullptr;
  std::vector<int32_t> slots_;
  int64_t copy_bytes_ = 0;  // of a page, as copy_table_ has them
};

}  // namespace longview::cuda
