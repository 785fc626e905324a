#include "cuda/decode_step.h"

namespace longview::cuda {

void DecodeStep::run(const State& state, const std::function<Key()>& key, const std::function<void()>& work) {
  state_.grow(device_, sizeof(State), "the token");
  device_.check(device_.library().copy_to_device(state_.as(), &state, sizeof(state), device_.stream()), "sending a token");
  if (!graph_ || key() != key_) {
    record(work);
    key_ = key();  // after the buffers grew
  }
  device_.check(device_.library().launch_graph(graph_, device_.stream()), "computing a token");
}

void DecodeStep::record(const std::function<void()>& work) {
  const kernels::Library& library = device_.library();
  key_ = {};
  device_.check(library.begin_recording(device_.stream()), "recording work");
  recording_ = true;
  try {
    work();
  } catch (...) {
    recording_ = false;
    library.end_recording(device_.stream(), nullptr);
    throw;
  }
  recording_ = false;
  device_.check(library.end_recording(device_.stream(), &graph_), "recording work");
}

void DecodeStep::forget() noexcept {
  if (graph_) device_.library().release_graph(graph_);
  graph_ = nullptr;
  key_ = {};
}

}  // namespace longview::cuda
