// Pages on disk: what is written is read back; what is damaged, foreign or half-written is never taken for a page.
#include "cache/cache_file.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <functional>
#include <random>

#include "base/error.h"
#include "base/hash.h"
#include "cache/chain.h"
#include "cache/collision.h"
#include "cache/save_pages.h"
#include "check.h"
#include "model/files.h"

using namespace longview;

namespace {

constexpr CacheIdentity kIdentity{1234, 4096};

std::vector<int32_t> ids(int64_t count, int32_t seed = 0) {
  std::vector<int32_t> out(static_cast<size_t>(count));
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<int32_t>(i * 7) + seed;
  return out;
}

// The only right content of a page: made from all tokens up to its end.
std::vector<std::byte> content(std::span<const int32_t> tokens, int64_t number) {
  const size_t end = std::min(tokens.size(), static_cast<size_t>((number + 1) * kPageTokens));
  std::mt19937_64 random(hash64(tokens.data(), end * sizeof(int32_t)));
  std::vector<std::byte> bytes(static_cast<size_t>(kIdentity.page_bytes));
  for (size_t i = 0; i < bytes.size(); i += 8) {
    const uint64_t word = random();
    std::memcpy(bytes.data() + i, &word, 8);
  }
  return bytes;
}

SaveResult save(const std::string& folder, std::span<const int32_t> tokens, const SaveOptions& options = {}, const CacheIdentity& identity = kIdentity) {
  const FetchPage fetch = [&](int64_t number, std::span<std::byte> out, std::function<void(bool)> done) {
    std::ranges::copy(content(tokens, number), out.begin());
    done(true);
  };
  return save_pages(folder, identity, tokens, options, fetch, CancelToken(), [](int64_t, int64_t) {});
}

SaveOptions with(int64_t max_bytes, bool afresh) {
  SaveOptions options;
  options.max_bytes = max_bytes;
  options.afresh = afresh;
  return options;
}

// Tokens of the sequence that the folder holds, every page compared with the only right content. -1: a wrong page.
int64_t held(const std::string& folder, std::span<const int32_t> tokens, const CacheIdentity& identity = kIdentity) {
  const CacheReader reader(folder, identity);
  std::vector<std::byte> bytes(static_cast<size_t>(identity.page_bytes));
  int64_t length = 0;
  for (int32_t parent = CacheReader::kRoot; length < static_cast<int64_t>(tokens.size());) {
    const int32_t page = reader.find(parent, tokens.subspan(static_cast<size_t>(length)));
    if (page == CacheReader::kNone || !reader.read(page, bytes)) break;
    const auto count = static_cast<int64_t>(reader.tokens(page).size());
    if (bytes != content(tokens.first(static_cast<size_t>(length + count)), length / kPageTokens)) return -1;
    length += count;
    parent = page;
    if (count < kPageTokens) break;
  }
  return length;
}

// A child of this process, where one is to be had: -1 would name every process to kill().
pid_t fork_child() {
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("no process to be had");
  return child;
}

}  // namespace

TEST("what is saved is read back, ragged tail and all; a second save writes only what is new") {
  const files::Scratch scratch;
  const std::string folder = scratch.path("deep/state");
  const std::vector<int32_t> tokens = ids(1000);
  CHECK(held(folder, tokens) == 0);
  CHECK(save(folder, tokens).tokens == 1000);
  CHECK(held(folder, tokens) == 1000);
  CHECK(save(folder, tokens).written_bytes == 0);
  std::vector<int32_t> longer = ids(1300);
  CHECK(save(folder, longer).written_bytes == 4 * kIdentity.page_bytes);
  CHECK(held(folder, longer) == 1300);
  CHECK(held(folder, tokens) == 1000);
  std::vector<int32_t> branch = longer;
  branch[600] = -5;
  CHECK(held(folder, branch) == 512);
  CHECK(save(folder, branch).tokens == 1300);
  CHECK(held(folder, branch) == 1300);
  CHECK(held(folder, longer) == 1300);
  struct stat status{};
  CHECK(stat(folder.c_str(), &status) == 0 && (status.st_mode & 0777) == 0700);
  CHECK(stat((folder + "/manifest.bin").c_str(), &status) == 0 && (status.st_mode & 0777) == 0600);
}

TEST("another model's, layout's or version's state is ignored, and replaced by the next save") {
  const files::Scratch scratch;
  const std::vector<int32_t> tokens = ids(500);
  save(scratch.path(), tokens);
  const CacheIdentity other{4321, kIdentity.page_bytes};
  CHECK(CacheReader(scratch.path(), other).size() == 0);
  CHECK(CacheReader(scratch.path(), other).note().empty());
  CHECK(save(scratch.path(), tokens, {}, other).tokens == 500);
  CHECK(held(scratch.path(), tokens, other) == 500);
  CHECK(held(scratch.path(), tokens) == 0);
}

TEST("saved pages of the same hash are told apart by their tokens") {
  const files::Scratch scratch;
  const Collision pages = collision(kIdentity.root);
  CHECK(pages.one != pages.other && chain_hash(kIdentity.root, pages.one) == chain_hash(kIdentity.root, pages.other));
  save(scratch.path(), pages.one);
  CHECK(held(scratch.path(), pages.one) == kPageTokens && held(scratch.path(), pages.other) == 0);
}

TEST("a manifest of a later version is no damage") {
  const files::Scratch scratch;
  save(scratch.path(), ids(500));
  std::string bytes = files::read(scratch.path("manifest.bin"));
  constexpr size_t kVersionAt = 8, kChecksumAt = 40;
  const uint64_t version = 2;
  std::memcpy(bytes.data() + kVersionAt, &version, sizeof(version));
  const uint64_t checksum = hash64(bytes.data(), kChecksumAt, version);
  std::memcpy(bytes.data() + kChecksumAt, &checksum, sizeof(checksum));
  files::write(scratch.path("manifest.bin"), bytes);
  CHECK(CacheReader(scratch.path(), kIdentity).size() == 0);
  CHECK(CacheReader(scratch.path(), kIdentity).note().empty());
  CHECK(save(scratch.path(), ids(500)).tokens == 500);
  CHECK(held(scratch.path(), ids(500)) == 500);
}

TEST("records whose checksums are right and that follow no full page before them lead nowhere") {
  constexpr size_t kHeader = 48, kRecord = 552, kParentAt = 20, kChecksumAt = 544;
  const files::Scratch scratch;
  save(scratch.path(), ids(500));
  save(scratch.path(), ids(600));  // three full pages, a ragged one, and behind the third a full one and a ragged one
  const std::string sound = files::read(scratch.path("manifest.bin"));
  CHECK(sound.size() == kHeader + 6 * kRecord && held(scratch.path(), ids(600)) == 600);
  const auto with_parent = [&](int64_t record, int32_t parent) {
    std::string bytes = sound;
    char* at = bytes.data() + kHeader + static_cast<size_t>(record) * kRecord;
    std::memcpy(at + kParentAt, &parent, sizeof(parent));
    const uint64_t checksum = hash64(at, kChecksumAt, kIdentity.root + static_cast<uint64_t>(record));
    std::memcpy(at + kChecksumAt, &checksum, sizeof(checksum));
    files::write(scratch.path("manifest.bin"), bytes);
  };
  with_parent(5, 4);
  CHECK(files::read(scratch.path("manifest.bin")) == sound);
  for (const int32_t parent : {1, 2, 6, 1 << 20, INT32_MAX, -2, INT32_MIN}) {
    with_parent(1, parent);
    CHECK(held(scratch.path(), ids(600)) == 128);
    CHECK(!CacheReader(scratch.path(), kIdentity).note().empty());
  }
  with_parent(5, 3);  // the ragged one
  CHECK(held(scratch.path(), ids(600)) == 512);
  CHECK(!CacheReader(scratch.path(), kIdentity).note().empty());
  files::write(scratch.path("manifest.bin"), sound + "x");  // and what is no whole record is said to be damage
  CHECK(held(scratch.path(), ids(600)) == 600 && !CacheReader(scratch.path(), kIdentity).note().empty());
}

TEST("a budget keeps the beginning; waste is written away") {
  const files::Scratch scratch;
  const std::vector<int32_t> tokens = ids(1280);
  CHECK(save(scratch.path(), tokens, with(4 * kIdentity.page_bytes, false)).tokens == 512);
  CHECK(held(scratch.path(), tokens) == 512);
  const std::vector<int32_t> other = ids(1280, 1);
  CHECK(save(scratch.path(), other, with(4 * kIdentity.page_bytes, false)).tokens == 512);
  CHECK(held(scratch.path(), other) == 512);
  CHECK(std::filesystem::file_size(scratch.path("pages-00001.bin")) == 4 * static_cast<uintmax_t>(kIdentity.page_bytes));
  CHECK(!std::filesystem::exists(scratch.path("pages-00000.bin")));
  CHECK(save(scratch.path(), other).tokens == 1280);
  CHECK(save(scratch.path(), other, with(3 * kIdentity.page_bytes, false)).tokens == 384);  // the limit was lowered
  CHECK(held(scratch.path(), other) == 384);
}

TEST("a save that writes all anew and is stopped leaves what was there") {
  const files::Scratch scratch;
  const std::vector<int32_t> tokens = ids(1280);
  CHECK(save(scratch.path(), tokens).tokens == 1280);
  const CancelToken cancel;
  int pages = 0;
  SaveOptions options;
  options.afresh = true;
  options.give_way = [&] {
    if (++pages == 4) CancelToken(cancel).cancel();
  };
  const FetchPage fetch = [&](int64_t number, std::span<std::byte> out, std::function<void(bool)> done) {
    std::ranges::copy(content(tokens, number), out.begin());
    done(true);
  };
  CHECK(save_pages(scratch.path(), kIdentity, tokens, options, fetch, cancel, [](int64_t, int64_t) {}).tokens == 0);
  CHECK(pages == 4 && held(scratch.path(), tokens) == 1280);
}

TEST("a page that is gone before it was fetched ends a save, and nothing is written in its place") {
  const files::Scratch scratch;
  const std::vector<int32_t> tokens = ids(1280);
  const FetchPage fetch = [&](int64_t number, std::span<std::byte> out, std::function<void(bool)> done) {
    if (number != 3) std::ranges::copy(content(tokens, number), out.begin());
    done(number != 3);
  };
  const SaveResult result = save_pages(scratch.path(), kIdentity, tokens, {}, fetch, CancelToken(), [](int64_t, int64_t) {});
  CHECK(!result.busy && result.tokens <= 3 * kPageTokens && held(scratch.path(), tokens) == result.tokens);
}

TEST("200 damages are detected, the sound beginning is kept, and the next save mends the rest") {
  const files::Scratch good;
  const std::vector<int32_t> tokens = ids(2000);
  save(good.path(), tokens);
  const files::Scratch foreign;
  save(foreign.path(), ids(2000, 9));
  std::mt19937_64 random(7);
  int less = 0;
  for (int i = 0; i < 200; ++i) {
    const files::Scratch scratch;
    std::filesystem::copy(good.path(), scratch.path(), std::filesystem::copy_options::overwrite_existing | std::filesystem::copy_options::recursive);
    const std::string name = i % 2 == 0 ? "manifest.bin" : "pages-00000.bin";
    std::string bytes = files::read(scratch.path(name));
    switch (i / 2 % 5) {
      case 0: bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8); break;
      case 1: bytes.resize(random() % bytes.size()); break;
      case 2: bytes = files::read(foreign.path(name)); break;
      case 3: {  // two pieces change places
        const size_t size = 1 + random() % 4096, a = random() % (bytes.size() - size), b = random() % (bytes.size() - size);
        std::swap_ranges(bytes.begin() + static_cast<ptrdiff_t>(a), bytes.begin() + static_cast<ptrdiff_t>(a + size), bytes.begin() + static_cast<ptrdiff_t>(b));
        break;
      }
      default: bytes.insert(random() % bytes.size(), std::string(1 + random() % 64, static_cast<char>(random()))); break;
    }
    files::write(scratch.path(name), bytes);
    const int64_t before = held(scratch.path(), tokens);
    CHECK(before >= 0 && (before == 2000 || before % kPageTokens == 0));
    less += before < 2000;
    // The engine asks for this when it has seen a damaged page; a damaged manifest is seen by the save itself.
    CHECK(save(scratch.path(), tokens, with(0, name != "manifest.bin")).tokens == 2000);
    CHECK(held(scratch.path(), tokens) == 2000);
  }
  std::printf("  %d of 200 had a shorter sound beginning\n", less);
  CHECK(less > 150);
}

TEST("a pipe or a link in the place of a file is no state, holds nobody up, and is written over") {
  const std::vector<int32_t> tokens = ids(500);
  for (const char* name : {"manifest.bin", "manifest.new", "pages-00000.bin", "pages-00001.bin"})
    for (const bool pipe : {true, false}) {
      const files::Scratch scratch;
      save(scratch.path(), tokens);
      std::filesystem::remove(scratch.path(name));
      if (pipe) CHECK(mkfifo(scratch.path(name).c_str(), 0600) == 0);
      else std::filesystem::create_symlink(scratch.put("elsewhere", "as it was"), scratch.path(name));
      const bool other = std::string(name) == "manifest.new" || std::string(name) == "pages-00001.bin";
      CHECK(held(scratch.path(), tokens) == (other ? 500 : 0));
      CHECK(save(scratch.path(), tokens, with(0, true)).tokens == 500);
      CHECK(held(scratch.path(), tokens) == 500);
      if (!pipe) CHECK(files::read(scratch.path("elsewhere")) == "as it was");
    }
}

TEST("a damaged page cuts there: what lies before it stays") {
  const files::Scratch scratch;
  const std::vector<int32_t> tokens = ids(2000);
  save(scratch.path(), tokens);
  std::string bytes = files::read(scratch.path("pages-00000.bin"));
  bytes[5 * 4096 + 17] ^= 1;
  files::write(scratch.path("pages-00000.bin"), bytes);
  CHECK(held(scratch.path(), tokens) == 5 * kPageTokens);
}

TEST("kill -9 at any moment of a save leaves the old or the new state") {
  constexpr int kKills = 100;
  const files::Scratch scratch;
  const std::vector<int32_t> tokens = ids(128 * 4000);
  CHECK(save(scratch.path(), std::span(tokens).first(1280)).tokens == 1280);
  std::mt19937_64 random(11);
  int64_t before = 1280;
  int killed = 0;
  for (int i = 0; i < kKills; ++i) {
    // Each save adds 200 to 400 pages.
    const int64_t target = std::min<int64_t>(static_cast<int64_t>(tokens.size()), before + (200 + static_cast<int64_t>(random() % 200)) * kPageTokens);
    const pid_t child = fork_child();
    if (child == 0) {
      save(scratch.path(), std::span(tokens).first(static_cast<size_t>(target)));
      _exit(0);
    }
    usleep(static_cast<useconds_t>(random() % 40000));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    killed += WIFSIGNALED(status);
    const int64_t now = held(scratch.path(), tokens);
    CHECK(now == before || now == target);
    before = now;
    if (before == static_cast<int64_t>(tokens.size())) {
      std::filesystem::remove_all(scratch.path());
      CHECK(save(scratch.path(), std::span(tokens).first(1280)).tokens == 1280);
      before = 1280;
    }
  }
  std::printf("  %d of %d were killed in the middle\n", killed, kKills);
  CHECK(killed > 0);
}

TEST("kill -9 while another model's or setting's state is replaced leaves one of the two whole") {
  const CacheIdentity other{4321, kIdentity.page_bytes};
  const std::vector<int32_t> tokens = ids(128 * 300);
  std::mt19937_64 random(12);
  int kept = 0;
  for (int i = 0; i < 20; ++i) {
    const files::Scratch scratch;
    save(scratch.path(), std::span(tokens).first(1280));
    const pid_t child = fork_child();
    if (child == 0) {
      save(scratch.path(), tokens, {}, other);
      _exit(0);
    }
    usleep(static_cast<useconds_t>(random() % 6000));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    const int64_t former = held(scratch.path(), tokens), present = held(scratch.path(), tokens, other);
    CHECK((former == 1280 && present == 0) || (former == 0 && present == 128 * 300));
    kept += former > 0;
    CHECK(save(scratch.path(), tokens, {}, other).tokens == 128 * 300);
    CHECK(held(scratch.path(), tokens, other) == 128 * 300);
    CHECK(held(scratch.path(), tokens) == 0);
  }
  std::printf("  the former state was kept %d times of 20\n", kept);
  CHECK(kept > 0);
}

TEST("one writes at a time; a process that died holds no lock") {
  const files::Scratch scratch;
  const std::vector<int32_t> tokens = ids(500);
  const pid_t child = fork_child();
  if (child == 0) {
    const auto writer = CacheWriter::open(scratch.path(), kIdentity);
    files::write(scratch.path("held"), "");
    pause();
    _exit(writer ? 0 : 1);
  }
  while (!std::filesystem::exists(scratch.path("held"))) usleep(1000);
  CHECK(save(scratch.path(), tokens).busy);
  CHECK(held(scratch.path(), tokens) == 0);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  CHECK(save(scratch.path(), tokens).tokens == 500);
}

TEST("what was not committed is given back to the disk") {
  const files::Scratch scratch;
  const std::vector<int32_t> tokens = ids(kPageTokens);
  CacheWriter::open(scratch.path(), kIdentity)->append(CacheReader::kRoot, tokens, content(tokens, 0));
  CHECK(!std::filesystem::exists(scratch.path("pages-00000.bin")));
  save(scratch.path(), tokens);
  CacheWriter::open(scratch.path(), kIdentity)->append(0, tokens, content(tokens, 0));
  CHECK(std::filesystem::file_size(scratch.path("pages-00000.bin")) == static_cast<uintmax_t>(kIdentity.page_bytes));
  CHECK(held(scratch.path(), tokens) == kPageTokens);
}

TEST("who writes to a folder that was cleared meanwhile stops, and leaves the one in its place alone") {
  const std::vector<int32_t> tokens = ids(500), other = ids(500, 1);
  const auto append = [&](CacheWriter& writer) { writer.append(CacheReader::kRoot, std::span(tokens).first(kPageTokens), content(tokens, 0)); };
  const auto check = [&](const std::function<void(CacheWriter&)>& before, const std::function<void(CacheWriter&)>& after) {
    const files::Scratch scratch;
    const std::string folder = scratch.path("state");
    auto writer = CacheWriter::open(folder, kIdentity);
    before(*writer);
    std::filesystem::rename(folder, scratch.path("trash"));
    CHECK(save(folder, other).tokens == 500);
    after(*writer);
    writer.reset();
    CHECK(held(folder, other) == 500);
  };
  check(append, [](CacheWriter& writer) { CHECK_THROWS(writer.commit(), kCannotWrite); });
  check(append, [](CacheWriter&) {});
  check([](CacheWriter&) {}, [&](CacheWriter& writer) { CHECK_THROWS(append(writer), kCannotWrite); });
}

TEST("a full disk keeps the former state and says so") {
  if (geteuid() != 0) SKIP("a small file system can be mounted by root alone");
  const files::Scratch scratch;
  if (mount("tmpfs", scratch.path().c_str(), "tmpfs", 0, "size=1m") != 0) SKIP("this machine does not let root mount a tmpfs");
  const std::vector<int32_t> tokens = ids(128 * 1000);
  const std::string folder = scratch.path("state");
  CHECK(save(folder, std::span(tokens).first(1280)).tokens == 1280);
  CHECK_THROWS(save(folder, tokens), kDiskFull);
  CHECK(held(folder, tokens) == 1280);
  CHECK(save(folder, std::span(tokens).first(2560)).tokens == 2560);  // the failed save gave its room back
  umount(scratch.path().c_str());
}

TEST("a folder that cannot be written to is read, and says so when it should be written") {
  const files::Scratch scratch;
  const std::vector<int32_t> tokens = ids(500), more = ids(1000);
  save(scratch.path("state"), tokens);
  const bool root = geteuid() == 0;
  if (root && (mount(scratch.path().c_str(), scratch.path().c_str(), nullptr, MS_BIND, nullptr) != 0 || mount(nullptr, scratch.path().c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) != 0))
    SKIP("this machine does not let root mount a folder read-only");
  if (!root) chmod(scratch.path("state").c_str(), 0500);
  CHECK_THROWS(save(scratch.path("other/state"), more), kCannotWrite);
  CHECK_THROWS(save(scratch.path("state"), more), kCannotWrite);
  CHECK(held(scratch.path("state"), tokens) == 500);
  if (root) umount(scratch.path().c_str());
  else chmod(scratch.path("state").c_str(), 0700);
}

TEST("a folder that cannot be opened keeps the former state") {
  const files::Scratch scratch;
  const std::vector<int32_t> tokens = ids(1000);
  chmod(scratch.path().c_str(), 0777);
  const std::string folder = scratch.path("state");
  const pid_t child = fork_child();
  if (child == 0) {
    if (geteuid() == 0 && setuid(65534) != 0) _exit(1);  // root may open everything
    save(folder, std::span(tokens).first(500));
    chmod(folder.c_str(), 0300);
    const int before = check::failures();
    CHECK_THROWS(save(folder, tokens), kCannotWrite);
    chmod(folder.c_str(), 0700);
    _exit(check::failures() - before);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(held(folder, std::span(tokens).first(500)) == 500);
  CHECK(CacheReader(folder, kIdentity).size() == 4);  // none that was taken back
}

TEST_MAIN()
