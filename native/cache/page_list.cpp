#include "cache/page_list.h"

#include <algorithm>
#include <new>
#include <utility>

#include "base/error.h"

namespace longview {

void PageList::share(const PageList& other) {
  LONGVIEW_CHECK(slots_.empty(), kInternal, "a page list that is in use cannot become a copy");
  const int64_t pages = pages_of(other.length());
  make_room(other.length());
  slots_.assign(other.slots_.begin(), other.slots_.begin() + pages);
  for (const int32_t slot : slots_) pool_->share(slot);
  tokens_ = other.tokens_;
  entries_ = other.entries_;
  root_ = other.root_;
  keeps_own_ = other.keeps_own_;
}

void PageList::swap(PageList& other) noexcept {
  std::swap(root_, other.root_);
  tokens_.swap(other.tokens_);
  slots_.swap(other.slots_);
  entries_.swap(other.entries_);
}

int64_t PageList::adopt(std::span<const int32_t> tokens) {
  if (keeps_own_) return 0;
  const int64_t start = length();
  int64_t covered = 0;
  std::vector<int32_t> page(kPageTokens);
  make_room(static_cast<int64_t>(tokens.size()));
  while (true) {
    const int64_t tail = length() % kPageTokens, wanted = kPageTokens - tail;
    if (covered + wanted >= static_cast<int64_t>(tokens.size())) return covered;
    const std::span<const int32_t> more = tokens.subspan(static_cast<size_t>(covered), static_cast<size_t>(wanted));
    std::copy(tokens_.end() - tail, tokens_.end(), page.begin());
    std::copy(more.begin(), more.end(), page.begin() + tail);
    const int32_t entry = index_->find(entries_.empty() ? root_ : entries_.back(), page);
    if (entry == PrefixIndex::kNone) return covered;
    pool_->share(index_->page(entry));
    truncate(length() - tail);
    slots_.push_back(index_->page(entry));
    entries_.push_back(entry);
    tokens_.insert(tokens_.end(), page.begin(), page.end());
    covered = length() - start;
  }
}

void PageList::attach(const std::shared_ptr<const Checkpoint>& checkpoint) {
  const auto page = static_cast<size_t>(checkpoint->length / kPageTokens) - 1;
  if (checkpoint->length % kPageTokens == 0 && page < entries_.size() && entries_[page] >= 0) index_->attach(entries_[page], checkpoint);
}

std::shared_ptr<const Checkpoint> PageList::last_checkpoint() const {
  for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry)
    if (auto checkpoint = *entry >= 0 ? index_->checkpoint(*entry) : nullptr) return checkpoint;
  return nullptr;
}

int64_t PageList::pages_for(int64_t tokens) const {
  if (tokens == 0) return 0;
  const int64_t held = pages_of(length()), all = pages_of(length() + tokens);
  const bool copies = length() % kPageTokens != 0 && pool_->shared(slots_[static_cast<size_t>(length() / kPageTokens)]);
  return all - held + (copies ? 1 : 0);
}

void PageList::make_room(int64_t tokens) {
  const auto pages = static_cast<size_t>(pages_of(length() + tokens));
  tokens_.reserve(pages * kPageTokens);
  slots_.reserve(pages);
  entries_.reserve(pages);
}

void PageList::own_last() {
  if (length() == 0) return;
  const auto page = static_cast<size_t>((length() - 1) / kPageTokens);
  int32_t& slot = slots_[page];
  if (!pool_->shared(slot)) return;
  const int32_t own = pool_->take();
  try {
    backend_->copy_page(pool_->storage(), slot, own, (length() - 1) % kPageTokens + 1);
  } catch (...) {
    pool_->release(own);
    throw;
  }
  pool_->release(slot);
  slot = own;
  entries_.resize(std::min(entries_.size(), page));  // the index has the other one
}

void PageList::reserve(int64_t tokens) {
  make_room(tokens);
  if (tokens > 0 && length() % kPageTokens != 0) own_last();
  const auto pages = static_cast<size_t>(pages_of(length() + tokens));
  const size_t before = slots_.size();
  try {
    while (slots_.size() < pages) slots_.push_back(pool_->take());
  } catch (...) {
    for (; slots_.size() > before; slots_.pop_back()) pool_->release(slots_.back());
    throw;
  }
}

void PageList::advance(std::span<const int32_t> tokens) {
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  while (static_cast<int64_t>(entries_.size()) < length() / kPageTokens) {
    const size_t page = entries_.size();
    const int32_t entry = entry_of(page);
    const bool known = entry != PrefixIndex::kNone && index_->page(entry) != slots_[page];
    entries_.push_back(known && keeps_own_ ? PrefixIndex::kNone : entry);
    if (!known || keeps_own_) continue;
    pool_->share(index_->page(entry));
    pool_->release(slots_[page]);
    slots_[page] = index_->page(entry);
  }
}

int32_t PageList::entry_of(size_t page) const {
  try {
    return index_->insert(page == 0 ? root_ : entries_.back(), tokens().subspan(page * kPageTokens, kPageTokens), slots_[page]);
  } catch (const std::bad_alloc&) {
    return PrefixIndex::kNone;  // what was read is read: others do not find it, no more
  }
}

void PageList::truncate(int64_t length) {
  tokens_.resize(static_cast<size_t>(length));
  const auto pages = static_cast<size_t>(pages_of(length));
  for (; slots_.size() > pages; slots_.pop_back()) pool_->release(slots_.back());
  entries_.resize(std::min(entries_.size(), static_cast<size_t>(length / kPageTokens)));
}

}  // namespace longview
