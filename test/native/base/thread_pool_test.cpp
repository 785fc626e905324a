#include "base/thread_pool.h"

#include <numeric>

#include "check.h"

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

TEST("fewer than one thread is one") {
  ThreadPool pool(0);
  CHECK(pool.threads() == 1);
}

TEST_MAIN()
