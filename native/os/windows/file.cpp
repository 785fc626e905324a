#include "os/file.h"

#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <algorithm>
#include <cerrno>

#include "os/windows/text.h"

namespace longview::os {
namespace {

// Others may read, write, rename and delete a file that is open, as on other systems.
constexpr DWORD kShared = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
constexpr DWORD kMostAtOnce = 1u << 30;

HANDLE handle_of(intptr_t handle) { return reinterpret_cast<HANDLE>(handle); }

int errno_of(DWORD error) {
  switch (error) {
    case ERROR_SUCCESS: return 0;
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
    case ERROR_BAD_NETPATH:
    case ERROR_INVALID_NAME: return ENOENT;
    case ERROR_ACCESS_DENIED:
    case ERROR_SHARING_VIOLATION:
    case ERROR_LOCK_VIOLATION: return EACCES;
    case ERROR_FILE_EXISTS:
    case ERROR_ALREADY_EXISTS: return EEXIST;
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL:
    case ERROR_DISK_QUOTA_EXCEEDED: return ENOSPC;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_COMMITMENT_LIMIT: return ENOMEM;
    default: return EIO;
  }
}

// Whether it succeeded; errno says why where it did not.
bool done(BOOL succeeded) {
  if (!succeeded) errno = errno_of(GetLastError());
  return succeeded;
}

OVERLAPPED place_of(int64_t offset) {
  OVERLAPPED place{};
  place.Offset = static_cast<DWORD>(offset);
  place.OffsetHigh = static_cast<DWORD>(offset >> 32);
  return place;
}

Status status_of(HANDLE file) {
  if (GetFileType(file) != FILE_TYPE_DISK) return {Kind::kOther};
  BY_HANDLE_FILE_INFORMATION info{};
  if (!done(GetFileInformationByHandle(file, &info))) return {};
  const auto joined = [](DWORD high, DWORD low) { return uint64_t{high} << 32 | low; };
  return {info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY ? Kind::kFolder : Kind::kFile, static_cast<int64_t>(joined(info.nFileSizeHigh, info.nFileSizeLow)),
          info.dwVolumeSerialNumber, joined(info.nFileIndexHigh, info.nFileIndexLow)};
}

bool is_link(HANDLE file) {
  FILE_ATTRIBUTE_TAG_INFO info{};
  return GetFileInformationByHandleEx(file, FileAttributeTagInfo, &info, sizeof(info)) && (info.FileAttributes & FILE_ATTRIBUTE_REPARSE_POINT) &&
         (info.ReparseTag == IO_REPARSE_TAG_SYMLINK || info.ReparseTag == IO_REPARSE_TAG_MOUNT_POINT);
}

bool resized(HANDLE file, int64_t bytes) {
  FILE_END_OF_FILE_INFO end{};
  end.EndOfFile.QuadPart = bytes;
  return done(SetFileInformationByHandle(file, FileEndOfFileInfo, &end, sizeof(end)));
}

HANDLE open_file(const std::string& path, Open how) {
  const bool reads = how == Open::kRead || how == Open::kReadNoLink;
  const DWORD access = reads ? GENERIC_READ : how == Open::kReadWrite ? GENERIC_READ | GENERIC_WRITE : GENERIC_WRITE;
  const DWORD creation = reads ? OPEN_EXISTING : how == Open::kReadWrite ? OPEN_ALWAYS : CREATE_NEW;
  const DWORD flags = FILE_ATTRIBUTE_NORMAL | (how == Open::kRead ? 0 : FILE_FLAG_OPEN_REPARSE_POINT);
  const HANDLE file = CreateFileW(wide(path).c_str(), access, kShared, nullptr, creation, flags, nullptr);
  if (!done(file != INVALID_HANDLE_VALUE)) return file;
  if (how == Open::kRead || !is_link(file)) return file;
  CloseHandle(file);
  errno = ELOOP;
  return INVALID_HANDLE_VALUE;
}

}  // namespace

File::File(const std::string& path, Open how) : handle_(reinterpret_cast<intptr_t>(open_file(path, how))) {}

File::~File() {
  if (handle_ != kNone) CloseHandle(handle_of(handle_));
}

int64_t File::read(int64_t offset, std::span<std::byte> out) const {
  size_t read = 0;
  while (read < out.size()) {
    OVERLAPPED place = place_of(offset + static_cast<int64_t>(read));
    DWORD count = 0;
    if (!ReadFile(handle_of(handle_), out.data() + read, static_cast<DWORD>(std::min<size_t>(out.size() - read, kMostAtOnce)), &count, &place)) {
      if (GetLastError() == ERROR_HANDLE_EOF) break;
      done(FALSE);
      return -1;
    }
    if (count == 0) break;
    read += count;
  }
  return static_cast<int64_t>(read);
}

bool File::write(int64_t offset, std::span<const std::byte> bytes) const {
  size_t written = 0;
  while (written < bytes.size()) {
    OVERLAPPED place = place_of(offset + static_cast<int64_t>(written));
    DWORD count = 0;
    if (!done(WriteFile(handle_of(handle_), bytes.data() + written, static_cast<DWORD>(std::min<size_t>(bytes.size() - written, kMostAtOnce)), &count, &place))) return false;
    written += count;
  }
  return true;
}

bool File::sync() const { return done(FlushFileBuffers(handle_of(handle_))); }

bool File::resize(int64_t bytes) const { return resized(handle_of(handle_), bytes); }

Status File::status() const { return status_of(handle_of(handle_)); }

// Of a byte far behind the content, which others may so read.
bool File::try_lock() const {
  OVERLAPPED place = place_of(INT64_MAX - 1);
  return done(LockFileEx(handle_of(handle_), LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &place));
}

void File::expect_sequential_reads() const {}

const std::byte* File::map(int64_t bytes) const {
  const HANDLE mapping = CreateFileMappingW(handle_of(handle_), nullptr, PAGE_READONLY, 0, 0, nullptr);
  if (!done(mapping != nullptr)) return nullptr;
  const void* address = MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, static_cast<SIZE_T>(bytes));
  done(address != nullptr);
  CloseHandle(mapping);
  return static_cast<const std::byte*>(address);
}

void unmap(const std::byte* mapped, int64_t) { UnmapViewOfFile(mapped); }

// Who does not share deletion keeps the folder from being renamed meanwhile: a path is enough then.
Folder::Folder(const std::string& path)
    : handle_(reinterpret_cast<intptr_t>(CreateFileW(wide(path).c_str(), FILE_LIST_DIRECTORY, FILE_SHARE_READ | FILE_SHARE_WRITE, nullptr, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, nullptr))),
      path_(path) {
  if (!done(handle_ != kNone)) return;
  if (status_of(handle_of(handle_)).kind == Kind::kFolder) return;
  CloseHandle(handle_of(std::exchange(handle_, kNone)));
  errno = ENOTDIR;
}

Folder::~Folder() {
  if (handle_ != kNone) CloseHandle(handle_of(handle_));
}

std::vector<std::string> Folder::names() const {
  std::vector<std::string> found;
  WIN32_FIND_DATAW entry{};
  const HANDLE entries = FindFirstFileW(wide(path_ + "/*").c_str(), &entry);
  if (!done(entries != INVALID_HANDLE_VALUE)) return found;
  do found.push_back(utf8(entry.cFileName));
  while (FindNextFileW(entries, &entry));
  FindClose(entries);
  return found;
}

bool Folder::remove(const std::string& name) const { return os::remove(path_ + "/" + name); }

bool Folder::sync() const { return true; }

Status status(const std::string& path) {
  const HANDLE file = CreateFileW(wide(path).c_str(), FILE_READ_ATTRIBUTES, kShared, nullptr, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, nullptr);
  if (!done(file != INVALID_HANDLE_VALUE)) return {};
  const Status found = status_of(file);
  CloseHandle(file);
  return found;
}

bool remove(const std::string& path) { return done(DeleteFileW(wide(path).c_str())); }

bool rename_over(const std::string& from, const std::string& to) {
  // Virus scanners hold a file that was just written for some milliseconds.
  constexpr int kTries = 20;
  constexpr DWORD kPauseMilliseconds = 25;
  for (int i = 1;; ++i) {
    if (MoveFileExW(wide(from).c_str(), wide(to).c_str(), MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH)) return true;
    const DWORD error = GetLastError();
    const bool may_pass = error == ERROR_SHARING_VIOLATION || (error == ERROR_ACCESS_DENIED && status(to).kind == Kind::kFile);
    if (!may_pass || i == kTries) {
      errno = errno_of(error);
      return false;
    }
    Sleep(kPauseMilliseconds);
  }
}

bool resize(const std::string& path, int64_t bytes) {
  const HANDLE handle = CreateFileW(wide(path).c_str(), GENERIC_WRITE, kShared, nullptr, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
  if (!done(handle != INVALID_HANDLE_VALUE)) return false;
  const bool succeeded = resized(handle, bytes);
  CloseHandle(handle);
  return succeeded;
}

// What lies in the user's own folders is for this user alone.
bool make_folder(const std::string& path) { return done(CreateDirectoryW(wide(path).c_str(), nullptr)) || status(path).kind == Kind::kFolder; }

bool disk_is_full() { return errno == ENOSPC; }

int process_id() { return static_cast<int>(GetCurrentProcessId()); }

}  // namespace longview::os
