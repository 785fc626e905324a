#include "cache/page_list.h"

#include "base/error.h"

namespace longview {

void PageList::share(const PageList& other) {
  LONGVIEW_CHECK(slots_.empty(), kInternal, "a page list that is in use cannot become a copy");
  const int64_t pages = (other.length_ + kPageTokens - 1) / kPageTokens;
  slots_.assign(other.slots_.begin(), other.slots_.begin() + pages);
  for (const int32_t slot : slots_) pool_->share(slot);
  length_ = other.length_;
}

void PageList::reserve(int64_t tokens) {
  const int64_t tail = length_ % kPageTokens;
  if (tokens > 0 && tail != 0) {
    int32_t& slot = slots_[static_cast<size_t>(length_ / kPageTokens)];
    if (pool_->shared(slot)) {
      const int32_t own = pool_->take();
      backend_->copy_page(pool_->storage(), slot, own, tail);
      pool_->release(slot);
      slot = own;
    }
  }
  const auto pages = static_cast<size_t>((length_ + tokens + kPageTokens - 1) / kPageTokens);
  const size_t before = slots_.size();
  try {
    while (slots_.size() < pages) slots_.push_back(pool_->take());
  } catch (...) {
    for (; slots_.size() > before; slots_.pop_back()) pool_->release(slots_.back());
    throw;
  }
}

void PageList::truncate(int64_t length) {
  length_ = length;
  const auto pages = static_cast<size_t>((length + kPageTokens - 1) / kPageTokens);
  for (; slots_.size() > pages; slots_.pop_back()) pool_->release(slots_.back());
}

}  // namespace longview
