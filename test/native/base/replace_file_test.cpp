// What is written as a whole is there as a whole, or not at all.
#include "base/replace_file.h"

#include <sys/mount.h>
#include <unistd.h>

#include "base/error.h"
#include "check.h"
#include "model/files.h"

using namespace longview;

TEST("a file is replaced, and nothing lies beside it") {
  const files::Scratch scratch;
  replace_file(scratch.path("file"), "one");
  replace_file(scratch.path("file"), std::string_view("two\0", 4));
  CHECK(files::read(scratch.path("file")) == std::string("two\0", 4));
  CHECK(!std::filesystem::exists(scratch.path("file.new")));
}

TEST("what cannot be written says so, and leaves nothing behind") {
  const files::Scratch scratch;
  CHECK_THROWS(replace_file(scratch.path("missing/file"), "one"), kCannotWrite);
  std::filesystem::create_directories(scratch.path("folder/inside"));
  CHECK_THROWS(replace_file(scratch.path("folder"), "one"), kCannotWrite);
  CHECK(!std::filesystem::exists(scratch.path("folder.new")));
}

TEST("a full disk keeps the former file, says so and gives its room back") {
  if (geteuid() != 0) SKIP("a small file system can be mounted by root alone");
  const files::Scratch scratch;
  if (mount("tmpfs", scratch.path().c_str(), "tmpfs", 0, "size=64k") != 0) SKIP("this machine does not let root mount a tmpfs");
  replace_file(scratch.path("file"), "one");
  CHECK_THROWS(replace_file(scratch.path("file"), std::string(1 << 20, 'x')), kDiskFull);
  CHECK(files::read(scratch.path("file")) == "one");
  CHECK(!std::filesystem::exists(scratch.path("file.new")));
  umount(scratch.path().c_str());
}

TEST_MAIN()
