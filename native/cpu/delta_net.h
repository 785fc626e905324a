// The recurrent layers' own work (Backend::delta_net): convolution, gates, and the gated delta rule, token by token in float32.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "base/thread_pool.h"
#include "cpu/kernels.h"

namespace longview::cpu {

// Of each recurrent layer: the last taps - 1 inputs of the convolution, oldest first [taps - 1, channels]; then of each value head
// S [head_dim, head_dim], keys by values.
class CpuRecurrentState final : public RecurrentState {
 public:
  explicit CpuRecurrentState(const RecurrentShape& shape);
  static int64_t layer_floats(const RecurrentConfig& c) { return (c.taps - 1) * c.channels() + c.value_dim() * c.head_dim; }

  std::span<float> all() { return values_; }
  std::span<const float> all() const { return values_; }

 private:
  std::vector<float> values_;
};

class DeltaNet {
 public:
  DeltaNet(const Kernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  // Of one layer, as Backend::delta_net has them; the small weights as floats.
  struct Layer {
    const RecurrentConfig& config;
    const float *taps, *decay, *decay_bias, *value_norm;
    float epsilon;
    const float* before;  // layer_floats(), as is after
    float* after;
  };
  void run(float* mixed, float* gate, float* alpha, float* beta, int64_t tokens, const Layer& layer, float* out);

 private:
  void convolve(float* mixed, int64_t tokens, const Layer& layer);

  const Kernels& kernels_;
  ThreadPool& pool_;
};

}  // namespace longview::cpu
