#include "cache/page_stream.h"

#include <algorithm>

namespace longview {
namespace {

// One reads while the other checks; more do not help a disk, and the taker needs a core too.
constexpr int kThreads = 2;
constexpr int64_t kBufferBytes = int64_t{64} << 20;

}  // namespace

PageStream::PageStream(const std::string& folder, const CacheIdentity& identity, std::span<const int32_t> tokens, int64_t first_page)
    : reader_(folder, identity), tokens_(tokens.begin(), tokens.end()), first_page_(first_page) {
  int32_t parent = CacheReader::kRoot;
  int64_t end = 0;
  for (int64_t number = 0; end < static_cast<int64_t>(tokens.size()); ++number) {
    const int32_t page = reader_.find(parent, tokens.subspan(static_cast<size_t>(end)));
    if (page == CacheReader::kNone) break;
    const auto count = static_cast<int64_t>(reader_.tokens(page).size());
    end += count;
    if (number >= first_page) {
      pages_.push_back(page);
      end_ = end;
    }
    if (count < kPageTokens) break;
    parent = page;
  }
  const int64_t count = std::clamp<int64_t>(kBufferBytes / identity.page_bytes, 2, 64);
  buffers_.resize(static_cast<size_t>(std::min<int64_t>(count, static_cast<int64_t>(pages_.size()))));
  for (Buffer& buffer : buffers_) buffer.bytes.resize(static_cast<size_t>(identity.page_bytes));
  threads_.reserve(kThreads);
  try {
    for (int i = 0; i < std::min(kThreads, static_cast<int>(pages_.size())); ++i) threads_.emplace_back([this] { read_ahead(); });
  } catch (const std::exception&) {
    if (threads_.empty()) throw;  // one is slower, and enough
  }
}

PageStream::~PageStream() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void PageStream::read_ahead() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || bad_ || started_ == pages_.size() || started_ < taken_ + buffers_.size(); });
    if (stopping_ || bad_ || started_ == pages_.size()) return;
    const size_t number = started_++;
    Buffer& target = buffer(number);
    lock.unlock();
    const bool sound = reader_.read(pages_[number], target.bytes);
    lock.lock();
    target.state = sound ? State::kReady : State::kBad;
    changed_.notify_all();
  }
}

bool PageStream::follows(std::span<const int32_t> tokens) const {
  const std::lock_guard lock(mutex_);
  const auto next = static_cast<size_t>(first_page_) + taken_;
  return tokens.size() / kPageTokens == next && tokens.size() <= tokens_.size() && std::equal(tokens.begin(), tokens.end(), tokens_.begin());
}

const PageStream::Page* PageStream::next(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  if (bad_ || taken_ == pages_.size()) return nullptr;
  Buffer& source = buffer(taken_);
  changed_.wait_for(lock, patience, [&] { return source.state != State::kEmpty; });
  if (source.state == State::kBad) {
    bad_ = true;
    changed_.notify_all();
  }
  if (source.state != State::kReady) return nullptr;
  front_ = {reader_.tokens(pages_[taken_]), source.bytes};
  return &front_;
}

void PageStream::pop() {
  {
    const std::lock_guard lock(mutex_);
    buffer(taken_).state = State::kEmpty;
    ++taken_;
  }
  changed_.notify_all();
}

bool PageStream::finished() const {
  const std::lock_guard lock(mutex_);
  return bad_ || taken_ == pages_.size();
}

std::string PageStream::note() const {
  const std::lock_guard lock(mutex_);
  return bad_ ? "A part of the saved state was damaged; the rest is read again." : reader_.note();
}

}  // namespace longview
