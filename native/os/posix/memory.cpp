#include "os/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

namespace longview::os {
namespace {

#ifdef MAP_NORESERVE
constexpr int kZeros = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
#else
constexpr int kZeros = MAP_PRIVATE | MAP_ANONYMOUS;
#endif

}  // namespace

int64_t page_size() {
  static const int64_t size = sysconf(_SC_PAGESIZE);
  return size;
}

std::byte* reserve(int64_t bytes) {
  void* address = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, kZeros, -1, 0);
  return address == MAP_FAILED ? nullptr : static_cast<std::byte*>(address);
}

void release(std::byte* reserved, int64_t bytes) { munmap(reserved, static_cast<size_t>(bytes)); }

void give_back(std::byte* at, int64_t bytes) {
#ifdef __linux__
  madvise(at, static_cast<size_t>(bytes), MADV_DONTNEED);
#else
  // There MADV_DONTNEED keeps the content.
  (void)mmap(at, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, kZeros | MAP_FIXED, -1, 0);
#endif
}

void populate([[maybe_unused]] std::byte* at, [[maybe_unused]] int64_t bytes) {
#ifdef MADV_POPULATE_WRITE
  (void)madvise(at, static_cast<size_t>(bytes), MADV_POPULATE_WRITE);  // a kernel that cannot does it as it can
#endif
}

void* allocate_aligned(size_t bytes) { return std::aligned_alloc(64, (bytes + 63) / 64 * 64); }

void free_aligned(void* at) { std::free(at); }

}  // namespace longview::os
