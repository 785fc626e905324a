#include "model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace longview {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int file) : file_(file) {}
  ~Descriptor() {
    if (file_ >= 0) close(file_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return file_; }

 private:
  const int file_;
};

void require_regular(const struct stat& status, const std::string& path) {
  LONGVIEW_CHECK(
      S_ISREG(status.st_mode), kInvalidArgument,
      "%s is %s, not a file. Choose a .gguf file, a .safetensors file or a folder with safetensors.",
      path.c_str(), S_ISDIR(status.st_mode) ? "a folder" : "a pipe or a device");
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  // Before open(), which can have effects on a device or wait for the writer of a pipe; and again on what was
  // opened.
  struct stat status{};
  LONGVIEW_CHECK(stat(path.c_str(), &status) == 0, kFileNotFound, "Cannot open the model file %s: %s.",
                 path.c_str(), std::strerror(errno));
  require_regular(status, path);
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  LONGVIEW_CHECK(file.get() >= 0 && fstat(file.get(), &status) == 0, kFileNotFound,
                 "Cannot open the model file %s: %s.", path.c_str(), std::strerror(errno));
  require_regular(status, path);
  LONGVIEW_CHECK(status.st_size > 0, kFileTruncated, "The model file %s is empty. Download it again.",
                 path.c_str());
  void* address = mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_SHARED, file.get(), 0);
  LONGVIEW_CHECK(address != MAP_FAILED, kOutOfMemory, "Cannot map the model file %s: %s.", path.c_str(),
                 std::strerror(errno));
  data_ = static_cast<const std::byte*>(address);
  size_ = status.st_size;
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<std::byte*>(data_), static_cast<size_t>(size_));
}

}  // namespace longview
