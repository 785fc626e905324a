// A layer's mixture of experts on the CPU: the router's choice, then one expert after another over the tokens that chose it.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/linear.h"
#include "model/config.h"

namespace longview::cpu {

class ExpertMixture {
 public:
  ExpertMixture(const Kernels& kernels, Precision precision, ThreadPool& pool);

  // As Experts of backend.h has them.
  struct Matrices {
    const TensorView& router;
    const std::vector<TensorView>&gates, &ups, &downs;
    int64_t used;
    bool normalised;
    const float *router_bias = nullptr, *gate_biases = nullptr, *up_biases = nullptr, *down_biases = nullptr;
    bool clamped = false;
  };
  // sum += what the experts of each row give, as Backend::norm_add_experts says, without the norm. x, sum [tokens, hidden].
  void add(const float* x, int64_t tokens, const Matrices& experts, float* sum);

  // Memory of its own for chunks of so many tokens, at most.
  static int64_t scratch_bytes(const ModelConfig& config, int64_t tokens);

 private:
  struct Chosen {
    int64_t token;
    float weight;
  };
  // The rows of each expert, those of the first before those of the second; `first` [experts + 1] is where they begin.
  void choose(const float* x, int64_t tokens, const Matrices& experts);

  const Kernels& kernels_;
  ThreadPool& pool_;
  Linear router_;  // in float32: a rounded score would choose another expert
  Linear linear_;
  std::vector<int32_t> choice_;  // [tokens, used]
  std::vector<float> weights_;   // [tokens, used]
  std::vector<int64_t> first_;
  std::vector<Chosen> chosen_;  // [tokens * used]
  Scratch scores_, rows_, gate_, up_;
};

}  // namespace longview::cpu
