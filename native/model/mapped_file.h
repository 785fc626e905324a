// A model file, mapped read-only: weights are used where they lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace longview {

class MappedFile {
 public:
  // Throws kFileNotFound, kInvalidArgument (a folder, a pipe, a device) or kFileTruncated (empty).
  // A file that another process truncates while it is mapped faults on access, as with every mmap; downloads are
  // therefore renamed into place only when complete.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, static_cast<size_t>(size_)}; }
  const std::byte* data() const { return data_; }
  int64_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace longview
