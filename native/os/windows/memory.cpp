#include "os/memory.h"

#define WIN32_LEAN_AND_MEAN
#include <windows.h>
//
#include <malloc.h>

namespace longview::os {

int64_t page_size() {
  static const int64_t size = [] {
    SYSTEM_INFO info{};
    GetSystemInfo(&info);
    return static_cast<int64_t>(info.dwPageSize);
  }();
  return size;
}

// Committed, which counts against what memory and the page file hold together, but takes memory only where it is touched.
std::byte* reserve(int64_t bytes) { return static_cast<std::byte*>(VirtualAlloc(nullptr, static_cast<size_t>(bytes), MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE)); }

void release(std::byte* reserved, int64_t) { VirtualFree(reserved, 0, MEM_RELEASE); }

void give_back(std::byte* at, int64_t bytes) {
  VirtualFree(at, static_cast<size_t>(bytes), MEM_DECOMMIT);
  VirtualAlloc(at, static_cast<size_t>(bytes), MEM_COMMIT, PAGE_READWRITE);
}

void populate(std::byte*, int64_t) {}

void* allocate_aligned(size_t bytes) { return _aligned_malloc((bytes + 63) / 64 * 64, 64); }

void free_aligned(void* at) { _aligned_free(at); }

int64_t total_memory() {
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof(status);
  return GlobalMemoryStatusEx(&status) ? static_cast<int64_t>(status.ullTotalPhys) : 0;
}

int64_t available_memory() {
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof(status);
  return GlobalMemoryStatusEx(&status) ? static_cast<int64_t>(status.ullAvailPhys < status.ullAvailPageFile ? status.ullAvailPhys : status.ullAvailPageFile) : 0;
}

}  // namespace longview::os
