// Work on rows, shared out to threads in groups of 16: a cache line of tokens in a KV page stays with one thread.
#pragma once

#include <algorithm>

#include "base/thread_pool.h"

namespace longview::cpu {

template <typename Body>
void each_row(ThreadPool& pool, int64_t count, const Body& body) {
  constexpr int64_t kGroup = 16;
  pool.parallel_for((count + kGroup - 1) / kGroup, [&](int64_t item, int) {
    for (int64_t row = item * kGroup; row < std::min(count, (item + 1) * kGroup); ++row) body(row);
  });
}

}  // namespace longview::cpu
