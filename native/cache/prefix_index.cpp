#include "cache/prefix_index.h"

#include <algorithm>
#include <utility>

#include "cache/chain.h"

namespace longview {

PrefixIndex::PrefixIndex(PagePool& pool, uint64_t root) : pool_(pool), root_(root) {
  free_.reserve(static_cast<size_t>(pool_.capacity()));  // every entry has a page of its own: reclaim() needs no memory
  pool_.when_full([this] { return reclaim(); });
}

PrefixIndex::~PrefixIndex() {
  pool_.when_full({});
  for (const auto& [hash, entry] : by_hash_) pool_.release(page(entry));
}

int32_t PrefixIndex::find(int32_t parent, std::span<const int32_t> tokens) {
  if (parent == kNone) return kNone;
  const auto found = by_hash_.find(chain_hash(hash_of(parent), tokens));
  if (found == by_hash_.end()) return kNone;
  Entry& entry = entries_[static_cast<size_t>(found->second)];
  if (entry.parent != parent || !std::equal(tokens.begin(), tokens.end(), entry.tokens.begin(), entry.tokens.end())) return kNone;
  entry.used = ++clock_;
  return found->second;
}

int32_t PrefixIndex::insert(int32_t parent, std::span<const int32_t> tokens, int32_t page) {
  if (parent == kNone) return kNone;
  if (const int32_t known = find(parent, tokens); known != kNone) return known;
  const uint64_t hash = chain_hash(hash_of(parent), tokens);
  if (by_hash_.contains(hash)) return kNone;
  Entry added{hash, parent, page, 0, ++clock_, {tokens.begin(), tokens.end()}};
  if (free_.empty()) {
    entries_.emplace_back();
    free_.push_back(static_cast<int32_t>(entries_.size()) - 1);
  }
  const int32_t entry = free_.back();
  by_hash_.emplace(hash, entry);  // nothing behind it throws
  free_.pop_back();
  entries_[static_cast<size_t>(entry)] = std::move(added);
  if (parent >= 0) ++entries_[static_cast<size_t>(parent)].children;
  pool_.share(page);
  return entry;
}

void PrefixIndex::attach(int32_t entry, const std::shared_ptr<const Checkpoint>& checkpoint) {
  entries_[static_cast<size_t>(entry)].checkpoint = checkpoint;
  last_attached_.push_back(checkpoint);
  if (last_attached_.size() > static_cast<size_t>(Recurrence::kMostCheckpoints)) last_attached_.pop_front();
}

int64_t PrefixIndex::reclaimable() const {
  return std::count_if(by_hash_.begin(), by_hash_.end(), [this](const auto& item) { return !pool_.shared(page(item.second)); });
}

bool PrefixIndex::reclaim() {
  // Whoever holds a page holds those before it: one that only the index holds has only such pages behind it, and the last
  // of a chain has none.
  int32_t oldest = kNone;
  for (const auto& [hash, at] : by_hash_) {
    const Entry& entry = entries_[static_cast<size_t>(at)];
    if (entry.children == 0 && !pool_.shared(entry.page) && (oldest == kNone || entry.used < entries_[static_cast<size_t>(oldest)].used)) oldest = at;
  }
  if (oldest == kNone) return false;
  Entry& entry = entries_[static_cast<size_t>(oldest)];
  by_hash_.erase(entry.hash);
  if (entry.parent >= 0) --entries_[static_cast<size_t>(entry.parent)].children;
  pool_.release(entry.page);
  entry = {};
  free_.push_back(oldest);
  return true;
}

void PrefixIndex::forget() {
  last_attached_.clear();
  std::vector<int32_t> unused;  // with each entry all that follow it
  for (const auto& [hash, at] : by_hash_)
    if (!pool_.shared(page(at))) unused.push_back(at);
  for (const int32_t at : unused) {
    const Entry& entry = entries_[static_cast<size_t>(at)];
    by_hash_.erase(entry.hash);
    if (entry.parent >= 0) --entries_[static_cast<size_t>(entry.parent)].children;
    pool_.release(entry.page);
  }
  for (const int32_t at : unused) {
    entries_[static_cast<size_t>(at)] = {};
    free_.push_back(at);
  }
}

}  // namespace longview
