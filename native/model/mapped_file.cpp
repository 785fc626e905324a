#include "model/mapped_file.h"

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "os/file.h"

namespace longview {
namespace {

void require_regular(const os::Status& status, const std::string& path) {
  LONGVIEW_CHECK(
      status.kind == os::Kind::kFile, kInvalidArgument,
      "%s is %s, not a file. Choose a .gguf file, a .safetensors file or a folder with safetensors.",
      path.c_str(), status.kind == os::Kind::kFolder ? "a folder" : "a pipe or a device");
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const auto missing = [&] {
    LONGVIEW_THROW(kFileNotFound, "Cannot open the model file %s: %s.", path.c_str(), std::strerror(errno));
  };
  // Before it is opened, which can have effects on a device or wait for the writer of a pipe; and again on what was
  // opened.
  const os::Status named = os::status(path);
  if (named.kind == os::Kind::kNothing) missing();
  require_regular(named, path);
  const os::File file(path, os::Open::kRead);
  if (!file) missing();
  const os::Status opened = file.status();
  if (opened.kind == os::Kind::kNothing) missing();
  require_regular(opened, path);
  LONGVIEW_CHECK(opened.size > 0, kFileTruncated, "The model file %s is empty. Download it again.", path.c_str());
  data_ = file.map(opened.size);
  LONGVIEW_CHECK(data_, kOutOfMemory, "Cannot map the model file %s: %s.", path.c_str(), std::strerror(errno));
  size_ = opened.size;
}

MappedFile::~MappedFile() {
  if (data_) os::unmap(data_, size_);
}

}  // namespace longview
