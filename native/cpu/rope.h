// RoPE on the CPU: angles in double, since a position of 60,000 times a frequency leaves float32 few digits of a turn.
#pragma once

#include <vector>

#include "backend/backend.h"

namespace longview::cpu {

class CpuRope final : public DeviceRope {
 public:
  explicit CpuRope(const RopeConfig& config) : config_(config) {}

  // Makes cos and sin for positions first .. first + tokens - 1; the layers of a chunk share them.
  void prepare(int64_t first, int64_t tokens);
  // Rotates one head [head_dim] of the t-th prepared position, in place.
  void rotate(float* head, int64_t t) const;

 private:
  const RopeConfig config_;
  int64_t first_ = -1, tokens_ = 0;
  std::vector<float> cos_, sin_;  // [tokens, dims / 2]
};

}  // namespace longview::cpu
