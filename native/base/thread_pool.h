// A fixed set of threads for loops over independent items. The calling thread works too.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace longview {

class ThreadPool {
 public:
  // `threads` counts the caller; at least 1. Where the system gives fewer, there are fewer.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs body(item, thread) for item 0 .. items - 1, each once, in about that order; returns when all are
  // done. `thread` is 0 .. threads() - 1. One loop at a time. The first exception of a body is thrown here, when no
  // item is being worked on any more.
  void parallel_for(int64_t items, const std::function<void(int64_t item, int thread)>& body);

 private:
  void work(int thread);
  // Takes items of the present loop until none is left.
  void take_items(int thread);
  bool has_items(uint64_t state) const { return (state & 0xffffffff) != 0; }

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  // Set before state_ says that there are items, and left alone until all of them are done.
  const std::function<void(int64_t, int)>* body_ = nullptr;
  int64_t items_ = 0;
  // Number of the loop (high half) and how many of its items nobody has taken (low half): one word, so that who comes late
  // cannot take an item of one loop for an item of the next.
  std::atomic<uint64_t> state_{0};
  std::atomic<int64_t> done_{0};
  std::exception_ptr failure_;  // of the present loop; behind mutex_ until all items are done
  std::atomic<int> sleeping_{0};
  std::atomic<bool> stop_{false};
};

}  // namespace longview
