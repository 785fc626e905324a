// Pages found by what they hold, kept while there is room, and let go in the right order: on real pages of the CPU backend.
#include "cache/prefix_index.h"

#include <algorithm>
#include <random>

#include "base/error.h"
#include "cache/chain.h"
#include "cache/collision.h"
#include "cache/page_list.h"
#include "check.h"

using namespace longview;

namespace {

struct Fixture {
  explicit Fixture(int64_t pages) : pool(*backend, {1, 1, 16, KvFormat::kFloat32}, pages), index(pool, 42) {}
  std::unique_ptr<Backend> backend = make_cpu_backend({1, Precision::kFloat32, "scalar"});
  PagePool pool;
  PrefixIndex index;

  // Token ids first, first + 1, ...
  static std::vector<int32_t> ids(int32_t first, int64_t count) {
    std::vector<int32_t> out(static_cast<size_t>(count));
    for (size_t i = 0; i < out.size(); ++i) out[i] = first + static_cast<int32_t>(i);
    return out;
  }
  void extend(PageList& list, std::span<const int32_t> tokens) {
    list.reserve(static_cast<int64_t>(tokens.size()));
    list.advance(tokens);
  }
};

// A device that has failed.
class Lost final : public Backend {
 public:
  void copy_page(KvStorage&, int32_t, int32_t, int64_t) override { refuse(); }
  DeviceInfo info() const override { refuse(); }
  int64_t weight_bytes(const TensorView&, WeightUse) const override { refuse(); }
  int64_t activation_bytes() const override { refuse(); }
  int64_t kv_page_bytes(const KvShape&) const override { refuse(); }
  int64_t scratch_bytes(const ModelConfig&, int64_t) const override { refuse(); }
  WeightHandle upload(const TensorView&, WeightUse) override { refuse(); }
  WeightHandle upload_experts(std::span<const TensorView>) override { refuse(); }
  std::unique_ptr<DeviceRope> upload_rope(const RopeConfig&) override { refuse(); }
  Activation allocate(int64_t, int64_t) override { refuse(); }
  void release(Activation&) override { refuse(); }
  Activation rows(Activation, int64_t, int64_t) const override { refuse(); }
  std::unique_ptr<KvStorage> allocate_kv(const KvShape&, int64_t) override { refuse(); }
  void discard_page(KvStorage&, int32_t) override { refuse(); }
  void read_page(KvStorage&, int32_t, std::span<std::byte>) override { refuse(); }
  void write_page(KvStorage&, int32_t, std::span<const std::byte>) override { refuse(); }
  int64_t recurrent_bytes(const RecurrentShape&) const override { refuse(); }
  std::unique_ptr<RecurrentState> allocate_recurrent(const RecurrentShape&) override { refuse(); }
  void clear_recurrent(RecurrentState&) override { refuse(); }
  void read_recurrent(const RecurrentState&, std::span<std::byte>) override { refuse(); }
  void write_recurrent(RecurrentState&, std::span<const std::byte>) override { refuse(); }
  void split_gates(Activation, int64_t, Activation, Activation) override { refuse(); }
  void multiply_gates(Activation, Activation) override { refuse(); }
  void scale_rows(Activation, Activation, const DeviceWeight&) override { refuse(); }
  void delta_net(Activation, Activation, Activation, Activation, const DeltaWeights&, float, const RecurrentShape&, int64_t, const RecurrentStates&, Activation) override { refuse(); }
  void embed(const DeviceWeight&, std::span<const int32_t>, float, Activation) override { refuse(); }
  void rms_norm(Activation, const DeviceWeight&, float, Activation) override { refuse(); }
  void linear(Activation, const DeviceWeight&, const DeviceWeight*, Activation) override { refuse(); }
  void norm_add_experts(Activation, const DeviceWeight&, float, Activation, const Experts&) override { refuse(); }
  void rms_norm_heads(Activation, const DeviceWeight&, Activation, const DeviceWeight&, int64_t, float) override { refuse(); }
  void scale_queries(Activation, const RopeConfig&, int64_t) override { refuse(); }
  void rope_and_append_kv(Activation, Activation, Activation, DeviceRope&, const KvShape&, int64_t, const KvPages&, int64_t) override { refuse(); }
  void attention(Activation, const KvShape&, int64_t, const AttentionLayer&, const KvPages&, int64_t, Activation) override { refuse(); }
  void gate_mul(Activation, Activation, GateCurve) override { refuse(); }
  void add(Activation, Activation) override { refuse(); }
  void read_row(Activation, int64_t, std::span<float>) override { refuse(); }

 private:
  [[noreturn]] static void refuse() { LONGVIEW_THROW(kDeviceLost, "lost"); }
};

}  // namespace

TEST("a new list takes the full pages of a sequence that began alike, but never its last token") {
  Fixture f(16);
  const std::vector<int32_t> tokens = Fixture::ids(0, 400);
  PageList first(*f.backend, f.pool, f.index);
  f.extend(first, tokens);
  CHECK(f.pool.used() == 4 && f.index.size() == 3);
  PageList second(*f.backend, f.pool, f.index);
  CHECK(second.adopt(tokens) == 384);
  CHECK(f.pool.used() == 4);
  CHECK(std::equal(second.view().page_slots.begin(), second.view().page_slots.end(), first.view().page_slots.begin()));
  PageList exact(*f.backend, f.pool, f.index);
  CHECK(exact.adopt(std::span(tokens).first(256)) == 128);
  std::vector<int32_t> other = tokens;
  other[130] = -7;
  PageList third(*f.backend, f.pool, f.index);
  CHECK(third.adopt(other) == 128);
}

TEST("a ragged tail gives way to a page that holds it and more") {
  Fixture f(16);
  const std::vector<int32_t> tokens = Fixture::ids(0, 300);
  PageList first(*f.backend, f.pool, f.index), second(*f.backend, f.pool, f.index);
  f.extend(second, std::span(tokens).first(150));
  f.extend(first, tokens);
  CHECK(second.adopt(std::span(tokens).subspan(150)) == 106);
  CHECK(second.length() == 256);
  CHECK(f.pool.used() == 3);
}

TEST("what no list holds is forgotten when asked to, what one holds stays with all before it, and pages come back to the pool") {
  Fixture f(16);
  const std::vector<int32_t> a = Fixture::ids(0, 384), b = Fixture::ids(1000, 384);
  std::vector<int32_t> other = a;
  other[200] = 7;  // behind the first page
  PageList held(*f.backend, f.pool, f.index);
  {
    PageList gone(*f.backend, f.pool, f.index);
    for (const std::vector<int32_t>& tokens : {a, b, other}) {
      gone.truncate(0);
      f.extend(gone, tokens);
    }
    CHECK(held.adopt(std::span(a).first(257)) == 256);
  }
  CHECK(f.pool.used() == 8 && f.index.size() == 8);
  f.index.forget();
  CHECK(f.pool.used() == 2 && f.index.size() == 2 && f.index.reclaimable() == 0);
  PageList list(*f.backend, f.pool, f.index);
  CHECK(list.adopt(b) == 0);
  CHECK(list.adopt(other) == 128);
  list.truncate(0);
  CHECK(list.adopt(a) == 256);
  list.truncate(0);
  held.truncate(0);
  f.index.forget();
  CHECK(f.pool.used() == 0 && f.index.size() == 0);
  f.index.forget();
  for (int i = 0; i < 3; ++i) {  // as a new one, up to the last page and over
    list.truncate(0);
    f.extend(list, Fixture::ids(5000 * i, 6 * kPageTokens));
  }
  CHECK(f.pool.used() == 16 && f.index.size() == 16);
  CHECK(list.adopt(Fixture::ids(0, 10)) == 0);
}

TEST("room for more tokens counts the copy of a tail that is shared") {
  Fixture f(8);
  PageList list(*f.backend, f.pool, f.index), copy(*f.backend, f.pool, f.index);
  f.extend(list, Fixture::ids(0, 200));
  CHECK(list.pages_for(0) == 0 && list.pages_for(56) == 0 && list.pages_for(57) == 1);
  copy.share(list);
  CHECK(list.pages_for(0) == 0 && list.pages_for(56) == 1 && list.pages_for(57) == 2);
  const int64_t before = f.pool.used();
  list.reserve(57);
  CHECK(f.pool.used() == before + 2 && copy.pages_for(57) == 1);
}

TEST("a list that keeps its own takes no page of others, and what others find stays") {
  Fixture f(8);
  const std::vector<int32_t> tokens = Fixture::ids(0, 300);
  PageList first(*f.backend, f.pool, f.index), own(*f.backend, f.pool, f.index), third(*f.backend, f.pool, f.index);
  f.extend(first, tokens);
  own.keep_own();
  CHECK(own.adopt(tokens) == 0 && own.length() == 0);
  f.extend(own, tokens);
  CHECK(f.pool.used() == 6 && f.index.size() == 2);
  CHECK(third.adopt(tokens) == 256);
  for (size_t page = 0; page < 2; ++page) CHECK(own.view().page_slots[page] != first.view().page_slots[page] && third.view().page_slots[page] == first.view().page_slots[page]);
  f.extend(own, Fixture::ids(300, 100));
  CHECK(f.index.size() == 2);  // its third page follows two that others do not have
  PageList fork(*f.backend, f.pool, f.index);
  fork.share(own);
  fork.truncate(0);
  CHECK(fork.adopt(tokens) == 0);
}

TEST("a page that stays when those behind it are forgotten makes room later, as any other") {
  Fixture f(4);
  const std::vector<int32_t> tokens = Fixture::ids(0, 384);
  PageList held(*f.backend, f.pool, f.index), writing(*f.backend, f.pool, f.index);
  {
    PageList gone(*f.backend, f.pool, f.index);
    f.extend(gone, tokens);
    CHECK(held.adopt(std::span(tokens).first(129)) == 128);
  }
  f.index.forget();
  CHECK(f.index.size() == 1);
  held.truncate(0);
  f.extend(writing, Fixture::ids(1000, 4 * kPageTokens));
  CHECK(writing.length() == 4 * kPageTokens);
}

TEST("a page that is computed twice is held once") {
  Fixture f(16);
  const std::vector<int32_t> tokens = Fixture::ids(0, 256);
  PageList first(*f.backend, f.pool, f.index), second(*f.backend, f.pool, f.index);
  f.extend(first, tokens);
  f.extend(second, tokens);
  CHECK(f.pool.used() == 2);
}

TEST("pages outlive their list while there is room; the oldest chain goes first, from its tail") {
  Fixture f(6);
  const std::vector<int32_t> a = Fixture::ids(0, 384), b = Fixture::ids(1000, 256);
  {
    PageList first(*f.backend, f.pool, f.index), second(*f.backend, f.pool, f.index);
    f.extend(first, a);
    f.extend(second, b);
  }
  CHECK(f.pool.used() == 5 && f.index.reclaimable() == 5);
  PageList writing(*f.backend, f.pool, f.index);
  f.extend(writing, Fixture::ids(2000, 300));  // three pages: one is free, two must go
  CHECK(f.pool.used() == 6);
  PageList again(*f.backend, f.pool, f.index);
  CHECK(again.adopt(a) == 128);
  again.truncate(0);
  CHECK(again.adopt(b) == 128);  // its last page holds the last token
  CHECK(f.index.find(f.index.find(PrefixIndex::kRoot, std::span(b).first(128)), std::span(b).subspan(128)) != PrefixIndex::kNone);
}

TEST("what was looked up last stays longest, and all pages come back to the pool") {
  Fixture f(6);
  const std::vector<int32_t> a = Fixture::ids(0, 257), b = Fixture::ids(1000, 257);
  for (const std::vector<int32_t>& tokens : {a, b}) {
    PageList list(*f.backend, f.pool, f.index);
    f.extend(list, tokens);
  }
  PageList list(*f.backend, f.pool, f.index);
  CHECK(list.adopt(a) == 256);
  list.truncate(0);
  f.extend(list, Fixture::ids(2000, 384));  // three pages: two are free, one must go
  list.truncate(0);
  CHECK(list.adopt(a) == 256);
  list.truncate(0);
  CHECK(list.adopt(b) == 128);
  list.truncate(0);
  f.extend(list, Fixture::ids(3000, 6 * kPageTokens));
  CHECK(f.pool.used() == 6 && f.index.size() == 6);
}

TEST("pages of the same hash are told apart by their tokens") {
  Fixture f(4);
  const uint64_t root = uint64_t{42} + static_cast<uint32_t>(PrefixIndex::kRoot);
  const Collision pages = collision(root);
  CHECK(pages.one != pages.other && chain_hash(root, pages.one) == chain_hash(root, pages.other));
  PageList first(*f.backend, f.pool, f.index), second(*f.backend, f.pool, f.index), third(*f.backend, f.pool, f.index);
  f.extend(first, pages.one);
  std::vector<int32_t> longer = pages.other;
  longer.push_back(0);
  CHECK(second.adopt(longer) == 0);
  f.extend(second, longer);
  CHECK(f.index.size() == 1 && second.view().page_slots[0] != first.view().page_slots[0]);
  CHECK(third.adopt(longer) == 0);
  second.truncate(0);
  CHECK(f.pool.used() == 1);
}

TEST("what was computed in another way is found as such alone, also behind a fork") {
  Fixture f(8);
  const std::vector<int32_t> tokens = Fixture::ids(0, 200);
  PageList first(*f.backend, f.pool, f.index), fork(*f.backend, f.pool, f.index), other(*f.backend, f.pool, f.index);
  first.start_at(PrefixIndex::kLongRoot);
  f.extend(first, std::span(tokens).first(100));
  fork.share(first);
  f.extend(fork, std::span(tokens).subspan(100));
  CHECK(other.adopt(tokens) == 0);
  other.start_at(PrefixIndex::kLongRoot);
  CHECK(other.adopt(tokens) == 128);
}

TEST("lists that change places take along in which way they were computed") {
  Fixture f(8);
  const std::vector<int32_t> tokens = Fixture::ids(0, 200);
  PageList list(*f.backend, f.pool, f.index), again(*f.backend, f.pool, f.index), plain(*f.backend, f.pool, f.index), other(*f.backend, f.pool, f.index);
  again.start_at(PrefixIndex::kLongRoot);
  f.extend(again, std::span(tokens).first(100));
  list.swap(again);
  f.extend(list, std::span(tokens).subspan(100));
  CHECK(again.length() == 0 && list.length() == 200 && plain.adopt(tokens) == 0);
  other.start_at(PrefixIndex::kLongRoot);
  CHECK(other.adopt(tokens) == 128);
}

TEST("a pool whose pages are all in use says so, and the list stays as it was") {
  Fixture f(3);
  PageList list(*f.backend, f.pool, f.index);
  f.extend(list, Fixture::ids(0, 384));
  CHECK_THROWS(list.reserve(1), kOutOfMemory);
  CHECK(list.length() == 384 && f.pool.used() == 3);
  Fixture more(4);  // room for one of two pages
  PageList other(*more.backend, more.pool, more.index);
  more.extend(other, Fixture::ids(0, 384));
  CHECK_THROWS(other.reserve(256), kOutOfMemory);
  CHECK(other.length() == 384 && other.view().page_slots.size() == 3 && more.pool.used() == 3);
}

TEST("the memory of a page that nobody holds any more is given back to the system") {
  Fixture f(2);
  const int32_t page = f.pool.take();
  std::vector<std::byte> bytes(static_cast<size_t>(f.pool.page_bytes()), std::byte{1});
  f.backend->write_page(f.pool.storage(), page, bytes);
  f.pool.share(page);
  f.pool.release(page);
  f.backend->read_page(f.pool.storage(), page, bytes);
  CHECK(bytes.front() == std::byte{1} && bytes.back() == std::byte{1});
  f.pool.release(page);
  f.backend->read_page(f.pool.storage(), page, bytes);  // what the system gives anew is zero
  CHECK(std::all_of(bytes.begin(), bytes.end(), [](std::byte x) { return x == std::byte{0}; }));
}

TEST("a page that a list holds is not let go, however old it is") {
  Fixture f(3);
  const std::vector<int32_t> held = Fixture::ids(0, 128);
  PageList first(*f.backend, f.pool, f.index), writing(*f.backend, f.pool, f.index), again(*f.backend, f.pool, f.index);
  f.extend(first, held);
  {
    PageList gone(*f.backend, f.pool, f.index);
    f.extend(gone, Fixture::ids(1000, 128));
  }
  f.extend(writing, Fixture::ids(2000, 256));
  std::vector<int32_t> longer = held;
  longer.push_back(0);
  CHECK(again.adopt(longer) == 128);
}

TEST("a tail that cannot be copied takes no page, and the list stays as it was") {
  Fixture f(3);
  Lost lost;
  PageList list(*f.backend, f.pool, f.index), copy(lost, f.pool, f.index);
  f.extend(list, Fixture::ids(0, 200));
  copy.share(list);
  CHECK_THROWS(copy.reserve(1), kDeviceLost);
  CHECK(copy.length() == 200 && f.pool.used() == 2);
}

TEST("200 random forks, cuts and extensions never use more than the pool, and leave nothing behind") {
  Fixture f(24);
  std::mt19937_64 generator(1);
  const auto random = [&](uint64_t below) { return generator() % below; };
  std::vector<std::unique_ptr<PageList>> lists;
  for (int i = 0; i < 200; ++i) {
    if (lists.size() >= 4) lists.erase(lists.begin() + static_cast<ptrdiff_t>(random(lists.size())));
    auto list = std::make_unique<PageList>(*f.backend, f.pool, f.index);
    if (!lists.empty() && random(2) == 0) list->share(*lists[random(lists.size())]);
    if (list->length() > 0 && random(2) == 0) list->truncate(static_cast<int64_t>(random(static_cast<uint64_t>(list->length()))));
    const std::vector<int32_t> tokens = Fixture::ids(static_cast<int32_t>(random(3) * 10000), static_cast<int64_t>(1 + random(400)));
    const int64_t adopted = list->adopt(tokens);
    try {
      f.extend(*list, std::span(tokens).subspan(static_cast<size_t>(adopted)));
    } catch (const Error& error) {
      CHECK(error.code == ErrorCode::kOutOfMemory);
    }
    CHECK(f.pool.used() <= f.pool.capacity());
    lists.push_back(std::move(list));
  }
  lists.clear();
  CHECK(f.pool.used() == f.index.size() && f.index.reclaimable() == f.index.size());
}

TEST_MAIN()
