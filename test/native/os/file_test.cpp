// Files and folders behave alike on every system.
#include "os/file.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "check.h"
#include "model/files.h"

using namespace longview;

namespace {

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string text(const os::File& file, int64_t offset, size_t most) {
  std::string out(most, '\0');
  const int64_t count = file.read(offset, std::as_writable_bytes(std::span(out)));
  if (count < 0) return "cannot be read";
  out.resize(static_cast<size_t>(count));
  return out;
}

void put(const std::string& path, std::string_view content) {
  os::remove(path);
  const os::File file(path, os::Open::kNew);
  CHECK(file && file.write(0, bytes(content)));
}

std::string get(const std::string& path) {
  const os::File file(path, os::Open::kRead);
  return file ? text(file, 0, 1000) : "is not there";
}

// A name that no single code page holds.
std::string odd(const files::Scratch& scratch) { return scratch.path("größe Ω 日本"); }

}  // namespace

TEST("what is written at a place is read from there, up to the end") {
  const files::Scratch scratch;
  const os::File file(odd(scratch), os::Open::kReadWrite);
  CHECK(file && file.write(0, bytes("0123456789")) && file.write(4, bytes("four")) && file.sync());
  CHECK(text(file, 0, 100) == "0123four89");
  CHECK(text(file, 6, 3) == "ur8");
  CHECK(text(file, 10, 1).empty());
  CHECK(file.resize(5) && text(file, 0, 100) == "0123f");
  CHECK(os::resize(odd(scratch), 3) && get(odd(scratch)) == "012");
  CHECK(file.resize(5) && text(file, 0, 100) == std::string("012\0\0", 5));
}

TEST("a new file must not be there, a file to read must") {
  const files::Scratch scratch;
  CHECK(!os::File(odd(scratch), os::Open::kRead) && errno == ENOENT);
  CHECK(!os::File(scratch.path("missing/file"), os::Open::kNew) && errno == ENOENT);
  put(odd(scratch), "one");
  CHECK(!os::File(odd(scratch), os::Open::kNew) && errno == EEXIST);
  CHECK(!os::File(odd(scratch), os::Open::kNewForAll) && errno == EEXIST);
  CHECK(text(os::File(odd(scratch), os::Open::kReadWrite), 0, 10) == "one");
}

TEST("a file takes the name of another, which is gone then") {
  const files::Scratch scratch;
  const std::string path = odd(scratch), fresh = scratch.path("fresh");
  put(path, "former");
  const os::Status former = os::status(path);
  put(fresh, "new");
  CHECK(os::rename_over(fresh, path));
  CHECK(get(path) == "new" && get(fresh) == "is not there");
  CHECK(!former.is_of(os::status(path)) && os::File(path, os::Open::kRead).status().is_of(os::status(path)));
  CHECK(!os::rename_over(fresh, path) && errno == ENOENT);
}

TEST("who has a file open keeps it when it is removed") {
  const files::Scratch scratch;
  const std::string path = odd(scratch);
  put(path, "content");
  {
    const os::File file(path, os::Open::kRead);
    CHECK(os::remove(path) && text(file, 0, 10) == "content");
  }
  CHECK(get(path) == "is not there" && !os::Status{}.is_of(os::status(path)));
  CHECK(!os::remove(path) && errno == ENOENT);
}

TEST("a name that someone reads is taken when they are done, or at once") {
  const files::Scratch scratch;
  const std::string path = odd(scratch), fresh = scratch.path("fresh");
  put(path, "former");
  put(fresh, "new");
  std::atomic<bool> open = false;
  std::thread reader([&] {
    const os::File file(path, os::Open::kRead);
    open = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
    CHECK(text(file, 0, 10) == "former");
  });
  while (!open) std::this_thread::yield();
  CHECK(os::rename_over(fresh, path));
  reader.join();
  CHECK(get(path) == "new");
}

TEST("kinds and sizes") {
  const files::Scratch scratch;
  put(odd(scratch), "12345");
  CHECK(os::status(odd(scratch)).kind == os::Kind::kFile && os::status(odd(scratch)).size == 5);
  CHECK(os::status(scratch.path()).kind == os::Kind::kFolder);
  CHECK(os::status(scratch.path("missing")).kind == os::Kind::kNothing);
  CHECK(get(scratch.path()) == "cannot be read" || get(scratch.path()) == "is not there");
}

TEST("links are followed where they may be") {
  const files::Scratch scratch;
  put(odd(scratch), "here");
  std::error_code refused;
  std::filesystem::create_symlink(os::path_of(odd(scratch)), os::path_of(scratch.path("link")), refused);
  if (refused || os::status(scratch.path("link")).kind == os::Kind::kNothing) SKIP("this system makes no links");
  CHECK(get(scratch.path("link")) == "here" && os::status(scratch.path("link")).size == 4);
  CHECK(!os::File(scratch.path("link"), os::Open::kReadNoLink));
  CHECK(!os::File(scratch.path("link"), os::Open::kReadWrite));
  CHECK(os::remove(scratch.path("link")) && get(odd(scratch)) == "here");
}

TEST("one holds a lock, and the content may be read meanwhile") {
  const files::Scratch scratch;
  {
    const os::File first(odd(scratch), os::Open::kReadWrite), second(odd(scratch), os::Open::kReadWrite);
    CHECK(first.try_lock() && first.write(0, bytes("mine")));
    CHECK(!second.try_lock());
    CHECK(get(odd(scratch)) == "mine");
  }
  CHECK(os::File(odd(scratch), os::Open::kReadWrite).try_lock());
}

TEST("what is mapped stays when the file is closed") {
  const files::Scratch scratch;
  put(odd(scratch), "mapped");
  const std::byte* mapped = os::File(odd(scratch), os::Open::kRead).map(6);
  CHECK(mapped && std::memcmp(mapped, "mapped", 6) == 0);
  if (mapped) os::unmap(mapped, 6);
}

TEST("a folder lists and removes what lies in it") {
  const files::Scratch scratch;
  const std::string path = odd(scratch);
  CHECK(os::make_folder(path) && os::make_folder(path));
  CHECK(!os::make_folder(scratch.path("missing/inner")) && errno == ENOENT);
  put(path + "/ä", "1");
  put(path + "/b", "2");
  const os::Folder folder(path);
  CHECK(folder && folder.sync());
  for (int i = 0; i < 2; ++i) {
    std::vector<std::string> names = folder.names();
    std::erase_if(names, [](const std::string& name) { return name == "." || name == ".."; });
    std::ranges::sort(names);
    CHECK(names == (std::vector<std::string>{"b", "ä"}));
  }
  CHECK(folder.remove("b") && get(path + "/b") == "is not there" && !folder.remove("b"));
  CHECK(!os::Folder(scratch.path("missing")) && os::Folder(scratch.path("missing")).names().empty());
  CHECK(!os::Folder(path + "/ä"));
}

TEST("an open folder is never taken for another that takes its name") {
  const files::Scratch scratch;
  const std::string path = odd(scratch), away = scratch.path("away");
  CHECK(os::make_folder(path));
  put(path + "/file", "former");
  const os::Folder folder(path);
  std::error_code refused;
  std::filesystem::rename(os::path_of(path), os::path_of(away), refused);
  if (!refused) {  // Windows does not let it go
    CHECK(os::make_folder(path));
    put(path + "/file", "new");
    CHECK(folder.remove("file") && get(path + "/file") == "new" && get(away + "/file") == "is not there");
  }
}

TEST_MAIN()
