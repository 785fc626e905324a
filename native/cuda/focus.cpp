#include "cuda/focus.h"

#include <algorithm>

namespace longview::cuda {

void Focus::add(kernels::FocusArgs args) {
  LONGVIEW_CHECK(keys_ == 0 || keys_ == args.keys, kInternal, "the focus of other keys was not taken");
  const kernels::Library& library = device_.library();
  const int64_t floats = kernels::focus_workspace_floats(args), size = sizeof(float);
  workspace_.grow(device_, floats * size, "the sums of attention");
  if (keys_ == 0) {
    focus_.grow(device_, args.keys * size, "the focus of attention");
    device_.check(library.fill(focus_.as(), 0, static_cast<size_t>(args.keys * size), device_.stream()), "clearing the focus of attention");
    keys_ = args.keys;
  }
  args.focus = focus_.as<float>();
  args.workspace = workspace_.as<float>();
  device_.check(library.focus(args, device_.stream()), "looking at attention");
}

void Focus::take(std::span<float> out) {
  std::fill(out.begin(), out.end(), 0.0f);
  const int64_t keys = std::exchange(keys_, 0);
  if (keys == 0) return;
  const size_t count = std::min(out.size(), static_cast<size_t>(keys));
  device_.check(device_.library().copy_to_host(out.data(), focus_.as(), count * sizeof(float), device_.stream()), "reading the focus of attention");
  device_.check(device_.library().synchronize(device_.stream()), "looking at attention");
}

}  // namespace longview::cuda
