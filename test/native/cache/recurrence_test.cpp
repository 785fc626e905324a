// States and checkpoints of a sequence: how far it can go back, what that costs in memory, and what of it lies on disk.
#include "cache/recurrence.h"

#include <algorithm>
#include <cstring>
#include <random>

#include "base/error.h"
#include "cache/checkpoint_file.h"
#include "check.h"
#include "model/files.h"

using namespace longview;

namespace {

const RecurrentShape kShape{{4, 1, 1, 16, 4, false}, 1};

// A sequence whose state says how many tokens it has seen.
struct Fixture {
  std::unique_ptr<Backend> backend = make_cpu_backend({1, Precision::kFloat32, "scalar"});
  StatePool pool{*backend, kShape};
  Recurrence recurrence{&pool};

  static int64_t seen(const Backend& backend, const RecurrentState& state) {
    std::vector<std::byte> bytes(static_cast<size_t>(backend.recurrent_bytes(kShape)));
    const_cast<Backend&>(backend).read_recurrent(state, bytes);
    int64_t count = 0;
    std::memcpy(&count, bytes.data(), sizeof(count));
    return count;
  }
  void read(Recurrence& r, int64_t tokens) {
    const RecurrentStates states = r.begin();
    std::vector<std::byte> bytes(static_cast<size_t>(backend->recurrent_bytes(kShape)));
    backend->read_recurrent(*states.before, bytes);
    int64_t count = 0;
    std::memcpy(&count, bytes.data(), sizeof(count));
    CHECK(count == r.reached());
    count += tokens;
    std::memcpy(bytes.data(), &count, sizeof(count));
    backend->write_recurrent(*states.after, bytes);
    r.advance(tokens);
    CHECK(r.reached() == count);
  }
  void read(int64_t tokens) { read(recurrence, tokens); }
};

std::vector<int64_t> lengths(const Recurrence& recurrence) {
  std::vector<int64_t> out;
  for (const auto& checkpoint : recurrence.checkpoints()) out.push_back(checkpoint->length);
  return out;
}

std::vector<int32_t> ids(int64_t count) {
  std::vector<int32_t> out(static_cast<size_t>(count));
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<int32_t>(i * 7 % 1000);
  return out;
}

Checkpoints made(std::initializer_list<int64_t> at, size_t bytes = 3000) {
  Checkpoints out;
  for (const int64_t length : at) {
    auto one = std::make_shared<Checkpoint>();
    one->length = length;
    for (size_t i = 0; i < bytes; ++i) one->bytes.push_back(static_cast<std::byte>((static_cast<size_t>(length) * 31 + i) % 251));
    out.push_back(one);
  }
  return out;
}

bool same(const Checkpoints& a, const Checkpoints& b) {
  return std::ranges::equal(a, b, [](const auto& x, const auto& y) { return x->length == y->length && x->bytes == y->bytes; });
}

constexpr CacheIdentity kIdentity{42, 4096};

}  // namespace

TEST("a sequence that is cut goes on behind its last checkpoint, or from its beginning") {
  Fixture f;
  f.read(100);
  f.recurrence.keep(true);
  f.read(50);
  f.recurrence.cut(150);
  CHECK(f.recurrence.reached() == 150);
  f.recurrence.cut(149);
  CHECK(f.recurrence.reached() == 100);
  f.read(7);
  f.recurrence.cut(99);
  CHECK(f.recurrence.reached() == 0 && f.recurrence.checkpoints().empty());
  f.read(3);
}

TEST("a chunk that is stopped changes nothing, and copies go their own ways") {
  Fixture f;
  f.read(10);
  (void)f.recurrence.begin();
  CHECK(f.recurrence.reached() == 10);
  Recurrence copy = f.recurrence;
  f.read(5);
  f.read(copy, 1);
  f.read(copy, 1);
  f.read(5);
  CHECK(f.recurrence.reached() == 20 && copy.reached() == 12);
}

TEST("the last token is gone through once more from the state before it") {
  Fixture f;
  f.read(10);
  f.read(1);
  const RecurrentStates again = f.recurrence.begin_last_again();
  CHECK(Fixture::seen(*f.backend, *again.before) == 10);
  CHECK(again.after != again.before);
  Recurrence fresh(&f.pool);
  CHECK_THROWS(fresh.begin_last_again(), kInternal);
}

TEST("checkpoints lie evenly however long the sequence is, and are few") {
  Fixture f;
  for (int64_t length = 0; length < 1 << 20; length += 1024) {
    f.read(1024);
    if (f.recurrence.is_due()) f.recurrence.keep(false);
    const std::vector<int64_t> kept = lengths(f.recurrence);
    CHECK(static_cast<int64_t>(kept.size()) <= Recurrence::kMostSpaced);
    int64_t gap = 0, before = 0;
    for (const int64_t at : kept) gap = std::max(gap, at - before), before = at;
    gap = std::max(gap, f.recurrence.reached() - before);
    CHECK(gap <= std::max(Recurrence::kSpacing, f.recurrence.reached() / 4 + 1024));
  }
  // The ends of readings take none of their places.
  const size_t spaced = lengths(f.recurrence).size();
  for (int i = 0; i < 5; ++i) f.read(10), f.recurrence.keep(true);
  CHECK(lengths(f.recurrence).size() == spaced + Recurrence::kMostEnds);
  CHECK(lengths(f.recurrence).back() == f.recurrence.reached());
}

TEST("another's checkpoint is gone on from") {
  Fixture f;
  f.read(300);
  const auto kept = f.recurrence.keep(true);
  f.read(300);
  Recurrence other(&f.pool);
  other.restore(kept);
  CHECK(other.reached() == 300);
  f.read(other, 20);
  other.cut(310);
  CHECK(other.reached() == 300);
  Recurrence none(nullptr);
  CHECK(none.begin().before == nullptr && none.keep(true) == nullptr && !none.is_due());
  none.advance(5);
  none.cut(3);
}

TEST("what is saved is loaded for the tokens that it belongs to, and for no others") {
  const files::Scratch scratch;
  const std::vector<int32_t> tokens = ids(1000);
  const Checkpoints all = made({128, 300, 1000});
  const auto writer = CacheWriter::open(scratch.path(), kIdentity);
  CHECK(save_checkpoints(*writer, kIdentity, tokens, all) > 9000);
  CHECK(save_checkpoints(*writer, kIdentity, tokens, all) == 0);
  CHECK(same(read_checkpoints(scratch.path(), kIdentity, tokens, 0, 3000).checkpoints, all));
  CHECK(same(read_checkpoints(scratch.path(), kIdentity, std::span(tokens).first(999), 128, 3000).checkpoints, {all[1]}));
  CHECK(read_checkpoints(scratch.path(), {43, 4096}, tokens, 0, 3000).checkpoints.empty());
  CHECK(read_checkpoints(scratch.path(), kIdentity, tokens, 0, 2999).checkpoints.empty());
  std::vector<int32_t> others = tokens;
  others[200] += 1;
  CHECK(same(read_checkpoints(scratch.path(), kIdentity, others, 0, 3000).checkpoints, {all[0]}));
  // The next save keeps what is still good, and no more.
  const Checkpoints later = made({300, 900});
  CHECK(save_checkpoints(*writer, kIdentity, tokens, later) < 4000);
  CHECK(same(read_checkpoints(scratch.path(), kIdentity, tokens, 0, 3000).checkpoints, later));
  CHECK(read_checkpoints(scratch.path("nothing"), kIdentity, tokens, 0, 3000).checkpoints.empty());
}

TEST("damaged checkpoints are as good as none") {
  const files::Scratch scratch;
  const std::vector<int32_t> tokens = ids(500);
  const Checkpoints one = made({500}, 600);
  save_checkpoints(*CacheWriter::open(scratch.path(), kIdentity), kIdentity, tokens, one);
  std::string path;
  for (const auto& entry : std::filesystem::directory_iterator(scratch.path()))
    if (entry.path().filename().string().starts_with("state-")) path = entry.path().string();
  const std::string sound = files::read(path);
  CHECK(sound.size() == 664);
  std::mt19937 random(3);
  for (size_t i = 0; i < 2000; ++i) {
    std::string bytes = sound;
    const size_t at = i < sound.size() ? i : random() % sound.size();
    if (i % 3 == 2) bytes.resize(at);
    else bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
    files::write(path, bytes);
    const ReadCheckpoints damaged = read_checkpoints(scratch.path(), kIdentity, tokens, 0, 600);
    CHECK(damaged.checkpoints.empty() && damaged.damaged);
  }
  // What is of the right size is left alone, unless all is written anew.
  std::string bytes = sound;
  bytes[300] ^= 1;
  files::write(path, bytes);
  const auto writer = CacheWriter::open(scratch.path(), kIdentity);
  CHECK(save_checkpoints(*writer, kIdentity, tokens, one) == 0 && save_checkpoints(*writer, kIdentity, tokens, one, true) == 664);
  CHECK(files::read(path) == sound);
  for (const char* name : {"state-.bin", "state-500-.bin", "state--5-0000000000000000.bin", "state-99999999999999999999-0000000000000000.bin", "state-500-zzzzzzzzzzzzzzzz.bin"}) files::write(scratch.path(name), sound);
  CHECK(same(read_checkpoints(scratch.path(), kIdentity, tokens, 0, 600).checkpoints, one));
}

TEST_MAIN()
