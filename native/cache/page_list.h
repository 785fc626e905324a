// The pages of one token sequence, in order, and its token ids. Copies of the list share pages; a ragged tail is copied when
// it is written. Full pages go into the engine's index, where later sequences find them.
#pragma once

#include <span>
#include <vector>

#include "cache/page_pool.h"
#include "cache/prefix_index.h"

namespace longview {

class PageList {
 public:
  PageList(Backend& backend, PagePool& pool, PrefixIndex& index) : backend_(&backend), pool_(&pool), index_(&index) {}
  ~PageList() { truncate(0); }
  PageList(const PageList&) = delete;
  PageList& operator=(const PageList&) = delete;

  int64_t length() const { return static_cast<int64_t>(tokens_.size()); }
  std::span<const int32_t> tokens() const { return tokens_; }
  KvPages view() const { return {&pool_->storage(), slots_}; }

  // From now on pages that others made are not taken in the place of this list's own, whatever tokens they hold.
  void keep_own() { keeps_own_ = true; }
  bool keeps_own() const { return keeps_own_; }
  // What the first page follows; PrefixIndex::kRoot unless said otherwise while the list is empty.
  void start_at(int32_t root) { root_ = root; }
  // Takes the place of another list's content, sharing its pages. This list must be empty, and is where that fails.
  void share(const PageList& other);
  // Changes places with a list of the same pool.
  void swap(PageList& other) noexcept;
  // Goes on with pages of the index as far as they hold `tokens`; returns how many of them that covers. The last token is
  // never covered: running it gives the logits. A ragged tail gives way to a page that holds it and more.
  int64_t adopt(std::span<const int32_t> tokens);
  // What recurrent layers know behind a full page: others find it with that page. No effect behind part of a page.
  void attach(const std::shared_ptr<const Checkpoint>& checkpoint);
  // The last of those that were attached to this list's pages, by whomever, and are still kept; null where there is none.
  std::shared_ptr<const Checkpoint> last_checkpoint() const;
  // Pages that room for `tokens` more takes from the pool, the copy of a shared tail among them.
  int64_t pages_for(int64_t tokens) const;
  // Makes the page of the last token this list's own, so that the token can be written again. A full one others find again after
  // advance({}). What fails leaves the list as before.
  void own_last();
  // Makes room for `tokens` more without counting them: the tail becomes this list's own, pages are taken. What fails
  // leaves the list as before.
  void reserve(int64_t tokens);
  // Counts tokens whose K and V were written into reserved room. Does not fail.
  void advance(std::span<const int32_t> tokens);
  // Keeps the first `length` tokens.
  void truncate(int64_t length);

 private:
  // Room in this list's own memory for `tokens` more, by whole pages: what takes or shares pages after it cannot fail and lose them.
  void make_room(int64_t tokens);
  // Of full page `page`, the first that has none yet.
  int32_t entry_of(size_t page) const;

  Backend* backend_;
  PagePool* pool_;
  PrefixIndex* index_;
  bool keeps_own_ = false;
  int32_t root_ = PrefixIndex::kRoot;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> slots_;
  std::vector<int32_t> entries_;  // of the full pages, in the index
};

}  // namespace longview
