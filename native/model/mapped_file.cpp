#include "model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace longview {

MappedFile::MappedFile(const std::string& path) : path_(path) {
  struct stat status {};
  LONGVIEW_CHECK(stat(path.c_str(), &status) == 0, kFileNotFound, "Cannot open the model file %s: %s.", path.c_str(),
                 std::strerror(errno));
  // Checked before open(): opening a pipe would wait for its writer.
  LONGVIEW_CHECK(S_ISREG(status.st_mode), kInvalidArgument,
                 "%s is not a regular file. Choose a .gguf file, a .safetensors file or a folder that holds one.", path.c_str());
  LONGVIEW_CHECK(status.st_size > 0, kFileTruncated, "The model file %s is empty. Download it again.", path.c_str());
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  LONGVIEW_CHECK(file >= 0, kFileNotFound, "Cannot open the model file %s: %s.", path.c_str(), std::strerror(errno));
  void* address = mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_SHARED, file, 0);
  const int error = errno;
  close(file);
  LONGVIEW_CHECK(address != MAP_FAILED, kOutOfMemory, "Cannot map the model file %s: %s.", path.c_str(), std::strerror(error));
  data_ = static_cast<const std::byte*>(address);
  size_ = status.st_size;
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<std::byte*>(data_), static_cast<size_t>(size_));
}

}  // namespace longview
