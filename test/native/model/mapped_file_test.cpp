#include "model/mapped_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "check.h"
#include "model/files.h"

using namespace longview;

TEST("a file is mapped whole") {
  const files::Scratch scratch;
  const MappedFile file(scratch.put("model", "some bytes"));
  CHECK(file.size() == 10);
  CHECK(file.text() == "some bytes");
  CHECK(file.bytes().size() == 10);
}

TEST("what is no file is refused, and nothing waits") {
  const files::Scratch scratch;
  CHECK_THROWS(MappedFile(scratch.path("missing")), kFileNotFound);
  CHECK_THROWS(MappedFile(scratch.path()), kInvalidArgument);
  CHECK_THROWS(MappedFile(scratch.put("empty", "")), kFileTruncated);
  CHECK_THROWS(MappedFile("/dev/null"), kInvalidArgument);
  const std::string pipe = scratch.path("pipe");
  if (mkfifo(pipe.c_str(), 0600) != 0) SKIP("no pipes here");
  CHECK_THROWS(MappedFile(pipe), kInvalidArgument);
  std::filesystem::create_symlink("loop", scratch.path("loop"));
  CHECK_THROWS(MappedFile(scratch.path("loop")), kFileNotFound);
}

TEST("an unreadable file says so") {
  if (geteuid() == 0) SKIP("root reads everything");
  const files::Scratch scratch;
  const std::string path = scratch.put("secret", "x");
  chmod(path.c_str(), 0);
  CHECK_THROWS(MappedFile(path), kFileNotFound);
}

TEST_MAIN()
