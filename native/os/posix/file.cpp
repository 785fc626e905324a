#include "os/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace longview::os {
namespace {

int flags(Open how) {
  switch (how) {
    case Open::kRead: return O_RDONLY | O_NONBLOCK;
    case Open::kReadNoLink: return O_RDONLY | O_NONBLOCK | O_NOFOLLOW;
    case Open::kReadWrite: return O_RDWR | O_CREAT | O_NOFOLLOW;
    case Open::kNew:
    case Open::kNewForAll: return O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;
  }
  return O_RDONLY;
}

Status status_of(const struct stat& found) {
  const Kind kind = S_ISREG(found.st_mode) ? Kind::kFile : S_ISDIR(found.st_mode) ? Kind::kFolder : Kind::kOther;
  return {kind, found.st_size, static_cast<uint64_t>(found.st_dev), static_cast<uint64_t>(found.st_ino)};
}

int descriptor(intptr_t handle) { return static_cast<int>(handle); }

bool synced(int file) {
#ifdef F_FULLFSYNC
  if (fcntl(file, F_FULLFSYNC) == 0) return true;  // fsync leaves it in the drive's cache there
#endif
  return fsync(file) == 0;
}

}  // namespace

File::File(const std::string& path, Open how) : handle_(::open(path.c_str(), flags(how) | O_CLOEXEC, how == Open::kNewForAll ? 0666 : 0600)) {}

File::~File() {
  if (handle_ != kNone) close(descriptor(handle_));
}

int64_t File::read(int64_t offset, std::span<std::byte> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t count = pread(descriptor(handle_), out.data() + done, out.size() - done, offset + static_cast<int64_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -1;
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  return static_cast<int64_t>(done);
}

bool File::write(int64_t offset, std::span<const std::byte> bytes) const {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = pwrite(descriptor(handle_), bytes.data() + done, bytes.size() - done, offset + static_cast<int64_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    done += static_cast<size_t>(count);
  }
  return true;
}

bool File::sync() const { return synced(descriptor(handle_)); }

bool File::resize(int64_t bytes) const { return ftruncate(descriptor(handle_), bytes) == 0; }

Status File::status() const {
  struct stat found{};
  return fstat(descriptor(handle_), &found) == 0 ? status_of(found) : Status{};
}

bool File::try_lock() const { return flock(descriptor(handle_), LOCK_EX | LOCK_NB) == 0; }

void File::expect_sequential_reads() const {
#ifdef POSIX_FADV_SEQUENTIAL
  posix_fadvise(descriptor(handle_), 0, 0, POSIX_FADV_SEQUENTIAL);
#endif
}

const std::byte* File::map(int64_t bytes) const {
  void* address = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ, MAP_SHARED, descriptor(handle_), 0);
  return address == MAP_FAILED ? nullptr : static_cast<const std::byte*>(address);
}

void unmap(const std::byte* mapped, int64_t bytes) { munmap(const_cast<std::byte*>(mapped), static_cast<size_t>(bytes)); }

Folder::Folder(const std::string& path) : handle_(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)), path_(path) {}

Folder::~Folder() {
  if (handle_ != kNone) close(descriptor(handle_));
}

std::vector<std::string> Folder::names() const {
  std::vector<std::string> found;
  const int own = dup(descriptor(handle_));  // closedir closes it
  DIR* entries = own < 0 ? nullptr : fdopendir(own);
  if (!entries) {
    if (own >= 0) close(own);
    return found;
  }
  rewinddir(entries);  // the place in the folder is the descriptor's, which may have been read before
  while (const dirent* entry = readdir(entries)) found.emplace_back(entry->d_name);
  closedir(entries);
  return found;
}

bool Folder::remove(const std::string& name) const { return unlinkat(descriptor(handle_), name.c_str(), 0) == 0; }

bool Folder::sync() const { return synced(descriptor(handle_)) || errno == EINVAL || errno == ENOTSUP; }

Status status(const std::string& path) {
  struct stat found{};
  return stat(path.c_str(), &found) == 0 ? status_of(found) : Status{};
}

bool remove(const std::string& path) { return unlink(path.c_str()) == 0; }

bool rename_over(const std::string& from, const std::string& to) { return std::rename(from.c_str(), to.c_str()) == 0; }

bool resize(const std::string& path, int64_t bytes) { return truncate(path.c_str(), bytes) == 0; }

bool make_folder(const std::string& path) { return mkdir(path.c_str(), 0700) == 0 || errno == EEXIST || errno == EISDIR; }

bool disk_is_full() { return errno == ENOSPC || errno == EDQUOT; }

int process_id() { return static_cast<int>(getpid()); }

}  // namespace longview::os
