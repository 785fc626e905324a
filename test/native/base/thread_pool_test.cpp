#include "base/thread_pool.h"

#include <numeric>
#include <stdexcept>

#include "check.h"
#include "no_threads.h"

using namespace longview;

TEST("each item runs once, whatever the number of threads") {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    for (const int64_t items : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(items));
      std::atomic<bool> thread_in_range{true};
      pool.parallel_for(items, [&](int64_t item, int thread) {
        ++runs[static_cast<size_t>(item)];
        if (thread < 0 || thread >= threads) thread_in_range = false;
      });
      for (const std::atomic<int>& count : runs) CHECK(count == 1);
      CHECK(thread_in_range);
    }
  }
}

TEST("what a loop wrote is seen after it, many loops in a row") {
  ThreadPool pool(4);
  std::vector<int64_t> values(64);
  for (int64_t round = 1; round <= 2000; ++round) {
    pool.parallel_for(64, [&](int64_t item, int) { values[static_cast<size_t>(item)] += item; });
    if (round % 500 == 0)
      CHECK(std::accumulate(values.begin(), values.end(), int64_t{0}) == round * (63 * 64 / 2));
  }
}

TEST("what a body throws comes out of the loop, on whichever thread, and the pool goes on") {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 200; ++round) {
      // The items of one thread alone, or all of them.
      const int throwing = round % (threads + 1);
      std::atomic<int> thrown{0};
      std::string what;
      try {
        pool.parallel_for(64, [&](int64_t, int thread) {
          if (thread != throwing && throwing != threads) return;
          ++thrown;
          throw std::runtime_error("no memory");
        });
      } catch (const std::runtime_error& error) {
        what = error.what();
      }
      CHECK(what == (thrown > 0 ? "no memory" : ""));
      std::atomic<int64_t> sum{0};
      pool.parallel_for(64, [&](int64_t item, int) { sum += item; });
      CHECK(sum == 63 * 64 / 2);
    }
  }
}

TEST("a pool works with the threads that the system gives") {
  ThreadPool pool = [] {
    const NoThreads none;
    return ThreadPool(4);
  }();
  CHECK(pool.threads() == 1);
  std::atomic<int64_t> sum{0};
  pool.parallel_for(64, [&](int64_t item, int) { sum += item; });
  CHECK(sum == 63 * 64 / 2);
}

TEST("fewer than one thread is one") {
  ThreadPool pool(0);
  CHECK(pool.threads() == 1);
}

TEST_MAIN()
