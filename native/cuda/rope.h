// Rotary positions on the GPU: cos and sin of a chunk's positions, made by its first layer and found again by the others.
#pragma once

#include "backend/backend.h"
#include "cuda/device.h"

namespace longview::cuda {

class CudaRope final : public DeviceRope {
 public:
  CudaRope(const Device& device, const RopeConfig& config);

  const RopeConfig& config() const { return config_; }
  int64_t half() const { return static_cast<int64_t>(config_.inverse_frequencies.size()); }

  // Makes cosine() and sine() those of positions first .. + tokens - 1, where they are others. `position`: on the device, of recorded work; else null.
  void reach(int64_t first, int64_t tokens, const int64_t* position);
  void forget() { tokens_ = 0; }

  // [tokens, half]; they may move when more tokens are reached.
  const float* cosine() const { return cosine_.as<float>(); }
  const float* sine() const { return sine_.as<float>(); }

 private:
  const Device& device_;
  const RopeConfig config_;
  Buffer frequencies_, cosine_, sine_;
  int64_t first_ = -1, tokens_ = 0;  // what the tables hold
};

inline CudaRope& cuda(DeviceRope& rope) { return static_cast<CudaRope&>(rope); }

}  // namespace longview::cuda
