// The pages of one token sequence, in order. Copies of the list share pages; a ragged tail is copied when it is written.
#pragma once

#include <span>
#include <vector>

#include "cache/page_pool.h"

namespace longview {

class PageList {
 public:
  PageList(Backend& backend, PagePool& pool) : backend_(&backend), pool_(&pool) {}
  ~PageList() { truncate(0); }
  PageList(const PageList&) = delete;
  PageList& operator=(const PageList&) = delete;

  int64_t length() const { return length_; }
  KvPages view() const { return {&pool_->storage(), slots_}; }

  // Takes the place of another list's content, sharing its pages. This list must be empty.
  void share(const PageList& other);
  // Makes room for `tokens` more without counting them: the tail becomes this list's own, pages are taken. On kOutOfMemory
  // the list is as before.
  void reserve(int64_t tokens);
  // Counts tokens that were written into reserved room.
  void advance(int64_t tokens) { length_ += tokens; }
  // Keeps the first `length` tokens.
  void truncate(int64_t length);

 private:
  Backend* backend_;
  PagePool* pool_;
  std::vector<int32_t> slots_;
  int64_t length_ = 0;
};

}  // namespace longview
