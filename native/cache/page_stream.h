// Reads a sequence's pages from a folder, ahead of whoever takes them: threads read and check while the taker copies.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "cache/cache_file.h"

namespace longview {

class PageStream {
 public:
  // The pages from number `first_page` on that hold `tokens`, as far as the folder has them; the last may be ragged.
  PageStream(const std::string& folder, const CacheIdentity& identity, std::span<const int32_t> tokens, int64_t first_page);
  ~PageStream();

  // Tokens up to the end of the last page, from the beginning of the sequence; 0 where there is nothing to load.
  int64_t end() const { return end_; }
  // Whether the next page follows these tokens, in the place of a ragged tail; not where who holds them has been cut or extended meanwhile.
  bool follows(std::span<const int32_t> tokens) const;

  struct Page {
    std::span<const int32_t> tokens;
    std::span<const std::byte> bytes;  // until pop()
  };
  // The next page in order, waited for as long; null where it takes longer and where there is no more.
  const Page* next(std::chrono::milliseconds patience);
  void pop();
  bool finished() const;

  // Why there is less than could be expected, a sentence; else empty.
  std::string note() const;
  // A page or a record was not sound: the next save should write all anew.
  bool damaged() const { return !note().empty(); }

 private:
  enum class State { kEmpty, kReady, kBad };
  struct Buffer {
    std::vector<std::byte> bytes;
    State state = State::kEmpty;
  };

  void read_ahead();
  Buffer& buffer(size_t page) { return buffers_[page % buffers_.size()]; }

  const CacheReader reader_;
  const std::vector<int32_t> tokens_;
  const int64_t first_page_;
  std::vector<int32_t> pages_;
  int64_t end_ = 0;
  std::vector<Buffer> buffers_;
  Page front_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  size_t started_ = 0, taken_ = 0;  // of pages_
  bool stopping_ = false, bad_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace longview
