// Which keys attention is fixed on, on the GPU: Backend::add_focus and take_focus.
#pragma once

#include <span>

#include "cuda/device.h"

namespace longview::cuda {

class Focus {
 public:
  explicit Focus(const Device& device) : device_(device) {}

  // `args` without focus, which has args.keys until the next take(), and without workspace.
  void add(kernels::FocusArgs args);
  void take(std::span<float> out);

 private:
  const Device& device_;
  Buffer focus_, workspace_;
  int64_t keys_ = 0;  // that focus_ holds; 0: nothing was added
};

}  // namespace longview::cuda
