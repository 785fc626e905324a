#include "cuda/rope.h"

namespace longview::cuda {

CudaRope::CudaRope(const Device& device, const RopeConfig& config) : device_(device), config_(config) {
  const auto bytes = static_cast<int64_t>(config.inverse_frequencies.size() * sizeof(double));
  frequencies_ = Buffer(device, bytes, "the rotary frequencies");
  device.check(device.library().copy_to_device(frequencies_.as(), config.inverse_frequencies.data(), static_cast<size_t>(bytes), device.stream()), "loading weights");
}

void CudaRope::reach(int64_t first, int64_t tokens, const int64_t* position) {
  if (first_ == first && tokens_ == tokens) return;
  tokens_ = 0;  // until they are there
  cosine_.grow(device_, tokens * half() * 4, "the rotary table");
  sine_.grow(device_, tokens * half() * 4, "the rotary table");
  device_.check(device_.library().rope_table({frequencies_.as<double>(), cosine_.as<float>(), sine_.as<float>(), tokens, half(), first, config_.attention_scale, position}, device_.stream()), "computing positions");
  first_ = first;
  tokens_ = tokens;
}

}  // namespace longview::cuda
