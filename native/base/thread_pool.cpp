#include "base/thread_pool.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace longview {
namespace {

// A layer has about a dozen loops, microseconds apart: a short spin saves their wake-ups, and a pool that
// idles sleeps.
constexpr int kSpins = 4000;

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#else
  std::this_thread::yield();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  workers_.reserve(static_cast<size_t>(std::max(threads - 1, 0)));
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
  } catch (const std::exception&) {
    // The system gives no more: those that there are do.
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::parallel_for(int64_t items, const std::function<void(int64_t, int)>& body) {
  if (items <= 0) return;
  if (workers_.empty() || items == 1) {
    for (int64_t i = 0; i < items; ++i) body(i, 0);
    return;
  }
  LONGVIEW_CHECK(items < int64_t{1} << 32, kInternal, "A loop of %lld items is too long.", static_cast<long long>(items));
  body_ = &body;
  items_ = items;
  done_.store(0, std::memory_order_relaxed);
  const uint64_t loop = (state_.load(std::memory_order_relaxed) >> 32) + 1;
  state_.store(loop << 32 | static_cast<uint64_t>(items));
  if (sleeping_.load() > 0) {
    const std::lock_guard lock(mutex_);
    wake_.notify_all();
  }
  take_items(0);
  // Waits for items that are being worked on, not for threads: on a busy machine one that the system has not let run yet
  // holds nothing up.
  for (int spins = 0; done_.load(std::memory_order_acquire) != items;) {
    if (++spins < kSpins)
      relax();
    else
      std::this_thread::yield();
  }
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void ThreadPool::take_items(int thread) {
  for (uint64_t state = state_.load(std::memory_order_acquire); has_items(state);) {
    if (!state_.compare_exchange_weak(state, state - 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    // It is taken and not done: body_ and items_ are those of its loop.
    try {
      (*body_)(items_ - static_cast<int64_t>(state & 0xffffffff), thread);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
    done_.fetch_add(1, std::memory_order_release);
    state = state_.load(std::memory_order_acquire);
  }
}

void ThreadPool::work(int thread) {
  while (!stop_) {
    for (int spins = 0; !has_items(state_.load(std::memory_order_acquire)) && spins < kSpins; ++spins) relax();
    if (!has_items(state_.load(std::memory_order_acquire))) {
      std::unique_lock lock(mutex_);
      ++sleeping_;
      wake_.wait(lock, [&] { return stop_ || has_items(state_.load()); });
      --sleeping_;
    }
    take_items(thread);
  }
}

}  // namespace longview
