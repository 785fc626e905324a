// Allocations that fail when a test asks for it: included by one file of a test, as it replaces `new` of the whole program.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

namespace longview {

inline int64_t allocations_left = -1;  // until one fails; negative: none does

// Whether `body` was done before the n-th allocation, so that none failed.
template <typename Body>
bool done_before(int64_t n, const Body& body) {
  allocations_left = n;
  try {
    body();
  } catch (const std::bad_alloc&) {
  }
  const bool done = allocations_left >= 0;
  allocations_left = -1;
  return done;
}

}  // namespace longview

// Not inlined: a compiler that sees through one of them takes it for the library's partner of another.
[[gnu::noinline]] void* operator new(size_t bytes) {
  if (longview::allocations_left >= 0 && longview::allocations_left-- == 0) throw std::bad_alloc();
  if (void* data = std::malloc(bytes)) return data;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* data) noexcept { std::free(data); }
[[gnu::noinline]] void operator delete(void* data, size_t) noexcept { std::free(data); }
