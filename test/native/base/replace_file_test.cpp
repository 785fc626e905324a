// What is written as a whole is there as a whole, or not at all.
#include "base/replace_file.h"

#include <sys/mount.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "base/error.h"
#include "check.h"
#include "model/files.h"

using namespace longview;

namespace {

// Names of what lies in a folder.
std::vector<std::string> names(const std::string& folder) {
  std::vector<std::string> all;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) all.push_back(entry.path().filename().string());
  return all;
}

}  // namespace

TEST("a file is replaced, and nothing lies beside it") {
  const files::Scratch scratch;
  replace_file(scratch.path("file"), "one");
  replace_file(scratch.path("file"), std::string_view("two\0", 4));
  CHECK(files::read(scratch.path("file")) == std::string("two\0", 4));
  CHECK(names(scratch.path()) == std::vector<std::string>{"file"});
}

TEST("who replaces a file at the same time as another gives it whole, too") {
  const files::Scratch scratch;
  const std::string path = scratch.path("file"), one(300'000, '1'), two(300'000, '2');
  replace_file(path, one);
  std::atomic<int> failed = 0, writing = 2, broken = 0;
  const auto write = [&](const std::string& text) {
    for (int i = 0; i < 50; ++i) {
      try {
        replace_file(path, text);
      } catch (const Error&) {
        ++failed;
      }
    }
    --writing;
  };
  std::thread first(write, one), second(write, two);
  while (writing > 0) {
    const std::string now = files::read(path);
    if (now != one && now != two) ++broken;
  }
  first.join();
  second.join();
  CHECK(failed == 0);
  CHECK(broken == 0);
  CHECK(names(scratch.path()) == std::vector<std::string>{"file"});
}

TEST("what cannot be written says so, and leaves nothing behind") {
  const files::Scratch scratch;
  CHECK_THROWS(replace_file(scratch.path("missing/file"), "one"), kCannotWrite);
  std::filesystem::create_directories(scratch.path("folder/inside"));
  CHECK_THROWS(replace_file(scratch.path("folder"), "one"), kCannotWrite);
  CHECK(names(scratch.path()) == std::vector<std::string>{"folder"});
}

TEST("a full disk keeps the former file, says so and gives its room back") {
  if (geteuid() != 0) SKIP("a small file system can be mounted by root alone");
  const files::Scratch scratch;
  if (mount("tmpfs", scratch.path().c_str(), "tmpfs", 0, "size=64k") != 0) SKIP("this machine does not let root mount a tmpfs");
  replace_file(scratch.path("file"), "one");
  CHECK_THROWS(replace_file(scratch.path("file"), std::string(1 << 20, 'x')), kDiskFull);
  CHECK(files::read(scratch.path("file")) == "one");
  CHECK(names(scratch.path()) == std::vector<std::string>{"file"});
  umount(scratch.path().c_str());
}

TEST_MAIN()
