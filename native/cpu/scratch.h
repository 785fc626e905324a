// Memory that a thread reuses from call to call; grows, never shrinks.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

#include "os/memory.h"

namespace longview::cpu {

class Scratch {
 public:
  // At least `bytes`, aligned to 64; the content is lost when it grows. Throws std::bad_alloc.
  template <typename T>
  T* get(int64_t count) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    if (bytes > size_) {
      data_.reset(os::allocate_aligned(bytes));
      size_ = data_ ? bytes : 0;
      if (!data_) throw std::bad_alloc();
    }
    return static_cast<T*>(data_.get());
  }

 private:
  struct Free {
    void operator()(void* p) const { os::free_aligned(p); }
  };
  std::unique_ptr<void, Free> data_;
  size_t size_ = 0;
};

}  // namespace longview::cpu
