#include "base/replace_file.h"

#include <atomic>
#include <cerrno>
#include <span>
#include <system_error>

#include "base/error.h"
#include "os/file.h"

namespace longview {
namespace {

// Another process, or thread, may replace the same file at this time.
std::string fresh_name(const std::string& path) {
  static std::atomic<unsigned> count = 0;
  return format("%s.%d-%u.new", path.c_str(), os::process_id(), ++count);
}

// What fails says so in errno.
bool write_whole(const std::string& path, std::string_view bytes) {
  os::remove(path);  // of an earlier process with this one's id
  const os::File file(path, os::Open::kNewForAll);
  return file && file.write(0, std::as_bytes(std::span(bytes))) && file.sync();
}

}  // namespace

void replace_file(const std::string& path, std::string_view bytes) {
  const std::string fresh = fresh_name(path);
  if (write_whole(fresh, bytes) && os::rename_over(fresh, path)) return;
  const bool full = os::disk_is_full();
  const std::string why = std::generic_category().message(errno);
  os::remove(fresh);
  if (full) LONGVIEW_THROW(kDiskFull, "%s could not be written: %s. Free some space and try again.", path.c_str(), why.c_str());
  LONGVIEW_THROW(kCannotWrite, "%s could not be written: %s.", path.c_str(), why.c_str());
}

}  // namespace longview
