#include "cache/page_pool.h"

#include "base/error.h"

namespace longview {

PagePool::PagePool(Backend& backend, const KvShape& shape, int64_t pages)
    : backend_(backend), storage_(backend.allocate_kv(shape, pages)), references_(static_cast<size_t>(pages), 0) {
  free_.reserve(static_cast<size_t>(pages));
  for (int64_t page = pages - 1; page >= 0; --page) free_.push_back(static_cast<int32_t>(page));
}

int32_t PagePool::take() {
  if (free_.empty() && reclaim_) reclaim_();
  LONGVIEW_CHECK(!free_.empty(), kOutOfMemory,
                 "The KV state is full: all %lld pages (%.2f GB) are in use. Close a conversation, or leave out files to make the prompt smaller.",
                 static_cast<long long>(capacity()), static_cast<double>(capacity() * page_bytes()) / 1e9);
  const int32_t page = free_.back();
  free_.pop_back();
  references_[static_cast<size_t>(page)] = 1;
  ++used_;
  return page;
}

void PagePool::share(int32_t page) { ++references_[static_cast<size_t>(page)]; }

void PagePool::release(int32_t page) {
  int32_t& references = references_[static_cast<size_t>(page)];
  LONGVIEW_CHECK(references > 0, kInternal, "KV page %d was released twice", page);
  if (--references > 0) return;
  backend_.discard_page(*storage_, page);
  free_.push_back(page);
  --used_;
}

}  // namespace longview
