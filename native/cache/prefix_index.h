// Full pages by what they hold: a new context finds the pages of every sequence that began alike, also those that no context
// holds any more. The index keeps them alive while there is room; the least recently used goes first, from the tail of its
// chain.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "cache/page_pool.h"
#include "cache/recurrence.h"

namespace longview {

class PrefixIndex {
 public:
  static constexpr int32_t kRoot = -1;  // what the first page follows
  static constexpr int32_t kNone = -2;
  static constexpr int32_t kLongRoot = -3;  // the same for inputs that are computed in another way (LongRoPE)

  // Hooks itself into the pool: a full pool takes unused pages from here.
  PrefixIndex(PagePool& pool, uint64_t root);
  ~PrefixIndex();
  PrefixIndex(const PrefixIndex&) = delete;
  PrefixIndex& operator=(const PrefixIndex&) = delete;

  // The entry of the page that follows `parent` and holds these kPageTokens token ids, or kNone.
  int32_t find(int32_t parent, std::span<const int32_t> tokens);
  // Adds a full page, which the index then shares. Where the sequence is known already, its entry: the caller should take
  // that page in place of its own. kNone where another sequence has this hash, or the parent is kNone. What fails leaves the
  // index as before.
  int32_t insert(int32_t parent, std::span<const int32_t> tokens, int32_t page);
  int32_t page(int32_t entry) const { return entries_[static_cast<size_t>(entry)].page; }

  // Remembers what recurrent layers know behind an entry's page, while others keep it or it is one of the last; and finds it.
  void attach(int32_t entry, const std::shared_ptr<const Checkpoint>& checkpoint);
  std::shared_ptr<const Checkpoint> checkpoint(int32_t entry) const { return entries_[static_cast<size_t>(entry)].checkpoint.lock(); }

  int64_t size() const { return static_cast<int64_t>(by_hash_.size()); }
  // Pages that only the index holds: what the pool gets back before it is full.
  int64_t reclaimable() const;
  // Lets these go now: what a context does not hold, no other one finds again.
  void forget();

 private:
  struct Entry {
    uint64_t hash = 0;
    int32_t parent = kRoot;
    int32_t page = -1;
    int32_t children = 0;
    uint64_t used = 0;  // clock_ at the last find or insert
    std::vector<int32_t> tokens;
    std::weak_ptr<const Checkpoint> checkpoint = {};
  };

  uint64_t hash_of(int32_t parent) const { return parent < 0 ? root_ + static_cast<uint32_t>(parent) : entries_[static_cast<size_t>(parent)].hash; }
  // Lets the least recently used page go that nothing else holds; false where there is none.
  bool reclaim();

  PagePool& pool_;
  const uint64_t root_;
  std::vector<Entry> entries_;
  std::vector<int32_t> free_;
  std::unordered_map<uint64_t, int32_t> by_hash_;
  std::deque<std::shared_ptr<const Checkpoint>> last_attached_;  // no more than a context keeps
  uint64_t clock_ = 0;
};

}  // namespace longview
