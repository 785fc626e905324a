// Files and folders, alike on every system. Paths are UTF-8. What fails says why in errno.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace longview::os {

enum class Kind { kNothing, kFile, kFolder, kOther };  // kOther: a pipe, a device

struct Status {
  Kind kind = Kind::kNothing;
  int64_t size = 0;
  uint64_t volume = 0, number = 0;  // which file it is, whatever its name

  bool is_of(const Status& other) const { return kind != Kind::kNothing && volume == other.volume && number == other.number; }
};

enum class Open {
  kRead,        // waits for no writer of a pipe
  kReadNoLink,  // and not where the name is a link
  kReadWrite,   // made where it is missing, for this user alone; not where the name is a link
  kNew,         // must not be there; for this user alone
  kNewForAll,   // must not be there; as the user's other files
};

// Closes itself.
class File {
 public:
  File() = default;
  File(const std::string& path, Open how);
  ~File();
  File(File&& other) noexcept : handle_(std::exchange(other.handle_, kNone)) {}
  File& operator=(File&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  explicit operator bool() const { return handle_ != kNone; }

  // Bytes read at `offset`, less than asked for at the end of the file; -1 on error. By several threads at once.
  int64_t read(int64_t offset, std::span<std::byte> out) const;
  bool write(int64_t offset, std::span<const std::byte> bytes) const;
  // On the disk, also after a power cut.
  bool sync() const;
  bool resize(int64_t bytes) const;
  Status status() const;
  // Exclusively, without waiting; it ends with the process at the latest.
  bool try_lock() const;
  // A hint.
  void expect_sequential_reads() const;
  // The first `bytes`, read-only; null on error. The mapping outlives the file's handle.
  const std::byte* map(int64_t bytes) const;

 private:
  static constexpr intptr_t kNone = -1;
  intptr_t handle_ = kNone;  // a descriptor, or a HANDLE
};

void unmap(const std::byte* mapped, int64_t bytes);

// An open folder: it stays the same one when another takes its name.
class Folder {
 public:
  explicit Folder(const std::string& path);
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  explicit operator bool() const { return handle_ != kNone; }

  std::vector<std::string> names() const;
  bool remove(const std::string& name) const;
  // As File::sync; true where the file system has no such thing.
  bool sync() const;

 private:
  static constexpr intptr_t kNone = -1;
  intptr_t handle_ = kNone;
  std::string path_;
};

// Follows links.
Status status(const std::string& path);
bool remove(const std::string& path);
// Whatever `to` was before.
bool rename_over(const std::string& from, const std::string& to);
bool resize(const std::string& path, int64_t bytes);
// For this user alone. One that is there is good.
bool make_folder(const std::string& path);
// Whether errno says that there is no room on the disk.
bool disk_is_full();
int process_id();

inline std::filesystem::path path_of(const std::string& utf8) { return std::filesystem::path(std::u8string(utf8.begin(), utf8.end())); }
inline std::string utf8_of(const std::filesystem::path& path) {
  const std::u8string text = path.u8string();
  return {text.begin(), text.end()};
}

}  // namespace longview::os
