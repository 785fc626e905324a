// Reference-counted KV page slots of one storage. A page is shared by every context whose tokens begin alike; it is
// written by its only owner until it is full, and never changed after.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "backend/backend.h"

namespace longview {

class PagePool {
 public:
  PagePool(Backend& backend, const KvShape& shape, int64_t pages);

  // A page with one reference. Throws kOutOfMemory with the numbers when the budget is used up.
  int32_t take();
  void share(int32_t page);
  // The last reference frees the page and gives its memory back.
  void release(int32_t page);
  // Called when no page is free: releases one that nobody needs and returns true, or returns false.
  void when_full(std::function<bool()> reclaim) { reclaim_ = std::move(reclaim); }
  bool shared(int32_t page) const { return references_[static_cast<size_t>(page)] > 1; }

  KvStorage& storage() { return *storage_; }
  int64_t capacity() const { return storage_->pages(); }
  int64_t used() const { return used_; }
  int64_t page_bytes() const { return storage_->page_bytes(); }

 private:
  Backend& backend_;
  std::unique_ptr<KvStorage> storage_;
  std::vector<int32_t> references_;
  std::vector<int32_t> free_;
  int64_t used_ = 0;
  std::function<bool()> reclaim_;
};

}  // namespace longview
