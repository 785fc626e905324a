#include "base/replace_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <system_error>

#include "base/error.h"

namespace longview {
namespace {

// Another process, or thread, may replace the same file at this time.
std::string fresh_name(const std::string& path) {
  static std::atomic<unsigned> count = 0;
  return format("%s.%d-%u.new", path.c_str(), static_cast<int>(getpid()), ++count);
}

// errno of what failed, 0 where all is on disk.
int write_whole(const std::string& path, std::string_view bytes) {
  unlink(path.c_str());  // of an earlier process with this one's id
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor < 0) return errno;
  std::FILE* file = fdopen(descriptor, "wb");
  if (!file) {
    close(descriptor);
    return ENOMEM;
  }
  const bool written = std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size() && std::fflush(file) == 0 && fsync(fileno(file)) == 0;
  const int error = errno;
  if (std::fclose(file) != 0 && written) return errno;
  return written ? 0 : error;
}

}  // namespace

void replace_file(const std::string& path, std::string_view bytes) {
  const std::string fresh = fresh_name(path);
  int error = write_whole(fresh, bytes);
  if (error == 0 && std::rename(fresh.c_str(), path.c_str()) != 0) error = errno;
  if (error == 0) return;
  std::remove(fresh.c_str());
  const std::string why = std::generic_category().message(error);
  if (error == ENOSPC || error == EDQUOT) LONGVIEW_THROW(kDiskFull, "%s could not be written: %s. Free some space and try again.", path.c_str(), why.c_str());
  LONGVIEW_THROW(kCannotWrite, "%s could not be written: %s.", path.c_str(), why.c_str());
}

}  // namespace longview
