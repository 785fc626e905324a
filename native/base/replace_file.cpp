#include "base/replace_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <system_error>

#include "base/error.h"

namespace longview {
namespace {

// errno of what failed, 0 where all is on disk.
int write_whole(const std::string& path, std::string_view bytes) {
  unlink(path.c_str());  // a pipe there would be waited for
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (!file) return errno;
  const bool written = std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size() && std::fflush(file) == 0 && fsync(fileno(file)) == 0;
  const int error = errno;
  if (std::fclose(file) != 0 && written) return errno;
  return written ? 0 : error;
}

}  // namespace

void replace_file(const std::string& path, std::string_view bytes) {
  const std::string fresh = path + ".new";
  int error = write_whole(fresh, bytes);
  if (error == 0 && std::rename(fresh.c_str(), path.c_str()) != 0) error = errno;
  if (error == 0) return;
  std::remove(fresh.c_str());
  const std::string why = std::generic_category().message(error);
  if (error == ENOSPC || error == EDQUOT) LONGVIEW_THROW(kDiskFull, "%s could not be written: %s. Free some space and try again.", path.c_str(), why.c_str());
  LONGVIEW_THROW(kCannotWrite, "%s could not be written: %s.", path.c_str(), why.c_str());
}

}  // namespace longview
