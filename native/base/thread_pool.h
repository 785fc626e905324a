// A fixed set of threads for loops over independent items. The calling thread works too.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace longview {

class ThreadPool {
 public:
  // `threads` counts the caller; at least 1. Throws std::system_error where the system has no more threads.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs body(item, thread) for item 0 .. items - 1, each once, in about that order; returns when all are
  // done. `thread` is 0 .. threads() - 1, the caller's being 0. One loop at a time. The body must not throw.
  void parallel_for(int64_t items, const std::function<void(int64_t item, int thread)>& body);

 private:
  void work(int thread);
  void take_items(int thread);
  void stop();

  std::vector<std::thread> workers_;
  const std::function<void(int64_t, int)>* body_ = nullptr;
  int64_t items_ = 0;
  bool stop_ = false;
  // Each on a cache line of its own: all threads write the second and third while they read the first.
  alignas(64) std::atomic<uint32_t> generation_{0};  // counts loops; workers wait for the next
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<uint32_t> busy_{0};  // workers that have not finished the loop
};

}  // namespace longview
