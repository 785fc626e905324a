// A model file, mapped read-only: weights are used where they lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace longview {

// The size is taken once, at opening, and everything is checked against it. A file that another process
// shortens while it is mapped faults on access, as with every mmap: downloads must be renamed into place when
// they are complete, never written over a model in use.
class MappedFile {
 public:
  // Throws kFileNotFound (missing or unreadable), kInvalidArgument (a folder, a pipe, a device) or
  // kFileTruncated (empty).
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, static_cast<size_t>(size_)}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), static_cast<size_t>(size_)}; }
  const std::byte* data() const { return data_; }
  int64_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace longview
