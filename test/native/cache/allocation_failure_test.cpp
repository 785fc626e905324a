// Every allocation of the index and of page lists fails in its turn: no page is lost, and the index finds what it found before.
#include <algorithm>

#include "cache/page_list.h"
#include "check.h"
#include "failing_allocations.h"

using namespace longview;

namespace {

struct Cache {
  std::unique_ptr<Backend> backend = make_cpu_backend({1, Precision::kFloat32, "scalar"});
  PagePool pool{*backend, {1, 1, 16, KvFormat::kFloat32}, 8};
  PrefixIndex index{pool, 42};
};

std::vector<int32_t> ids(int32_t first, int64_t count) {
  std::vector<int32_t> out(static_cast<size_t>(count));
  for (size_t i = 0; i < out.size(); ++i) out[i] = first + static_cast<int32_t>(i);
  return out;
}

}  // namespace

TEST("an entry that there is no memory for leaves the index as it was") {
  for (const int64_t entries : {0, 1, 2, 3})
    for (const bool reused : {false, true}) {
      bool done = false;
      for (int64_t n = 0; !done; ++n) {
        Cache c;
        int32_t last = PrefixIndex::kRoot;
        for (int32_t i = 0; i < entries; ++i) {
          const int32_t page = c.pool.take();
          last = c.index.insert(last, ids(1000 * i, kPageTokens), page);
          c.pool.release(page);
        }
        if (reused) {  // a full pool takes every entry back
          std::vector<int32_t> all;
          while (c.index.size() > 0) all.push_back(c.pool.take());
          for (const int32_t page : all) c.pool.release(page);
          last = PrefixIndex::kRoot;
        }
        const std::vector<int32_t> more = ids(-1000, kPageTokens), other = ids(-2000, kPageTokens);
        const int32_t page = c.pool.take();
        const int64_t size = c.index.size();
        done = done_before(n, [&] { c.index.insert(last, more, page); });
        CHECK(c.index.size() == size + (done ? 1 : 0));
        CHECK(c.index.reclaimable() == size);
        const int32_t entry = c.index.insert(last, more, page);
        CHECK(entry >= 0 && c.index.page(entry) == page);
        CHECK(c.index.insert(last, other, c.pool.take()) >= 0);
      }
    }
}

TEST("a list that there is no memory for loses no page, and what was read counts") {
  const std::vector<int32_t> tokens = ids(0, 400);
  bool done = false;
  for (int64_t n = 0; !done; ++n) {
    Cache c;
    {
      PageList first(*c.backend, c.pool, c.index), second(*c.backend, c.pool, c.index);
      bool reserved = false, advanced = false;
      done = done_before(n, [&] {
        first.reserve(400);
        reserved = true;
        first.advance(tokens);
        advanced = true;
        second.adopt(tokens);
        second.reserve(16);
        second.advance(std::span(tokens).last(16));
      });
      CHECK(advanced == reserved && first.length() == (advanced ? 400 : 0));
      CHECK(static_cast<int64_t>(second.view().page_slots.size()) == pages_of(second.length()));
    }
    CHECK(c.pool.used() == c.index.size() && c.index.reclaimable() == c.index.size());
    PageList again(*c.backend, c.pool, c.index);
    const int64_t adopted = again.adopt(tokens);
    CHECK(adopted == c.index.size() * kPageTokens);
    again.reserve(400 - adopted);
    again.advance(std::span(tokens).subspan(static_cast<size_t>(adopted)));
    CHECK(c.index.size() == 3);
  }
}

TEST("a list that there is no memory to share is empty, and shares when there is") {
  const std::vector<int32_t> tokens = ids(0, 400);
  bool done = false;
  for (int64_t n = 0; !done; ++n) {
    Cache c;
    PageList first(*c.backend, c.pool, c.index), second(*c.backend, c.pool, c.index);
    first.reserve(400);
    first.advance(tokens);
    done = done_before(n, [&] { second.share(first); });
    CHECK(static_cast<int64_t>(second.view().page_slots.size()) == (done ? 4 : 0) && second.length() == (done ? 400 : 0));
    if (!done) second.share(first);
    CHECK(std::ranges::equal(second.tokens(), tokens) && std::ranges::equal(second.view().page_slots, first.view().page_slots));
  }
}

TEST_MAIN()
