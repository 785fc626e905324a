#include "cache/write_file.h"

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace longview {

void throw_errno(const std::string& what) {
  const int error = errno;
  if (os::disk_is_full()) LONGVIEW_THROW(kDiskFull, "The disk is full: %s. The state stays in memory; free some space, or clear the cache.", what.c_str());
  LONGVIEW_THROW(kCannotWrite, "%s: %s. The state stays in memory.", what.c_str(), std::strerror(error));
}

void write_at(const os::File& file, int64_t offset, std::span<const std::byte> bytes, const std::string& path) {
  if (!file.write(offset, bytes)) throw_errno(path + " could not be written");
}

void sync(const os::File& file, const std::string& path) {
  if (!file.sync()) throw_errno(path + " could not be written");
}

}  // namespace longview
