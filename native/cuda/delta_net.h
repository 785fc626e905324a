// The recurrent layers' own work on the GPU (Backend::delta_net), and the states that it goes from one to the next of.
#pragma once

#include <string>

#include "backend/backend.h"
#include "cuda/device.h"
#include "cuda/weights.h"

namespace longview::cuda {

// Of each recurrent layer what kernels/api/recurrent.h says of its state.
struct CudaRecurrentState final : RecurrentState {
  explicit CudaRecurrentState(Buffer bytes) : buffer(std::move(bytes)) {}
  Buffer buffer;
};
inline const CudaRecurrentState& cuda(const RecurrentState& state) { return static_cast<const CudaRecurrentState&>(state); }

class DeltaNet {
 public:
  explicit DeltaNet(const Device& device) : device_(device) {}

  struct Inputs {
    Activation mixed, gate, alpha, beta;
    // Not null, of one token: alpha and beta are made here, of `normed`, which their weights meet in bf16.
    const DeviceWeight *alpha_weight = nullptr, *beta_weight = nullptr;
    Activation normed = {};
  };
  // `moving`: on the device, the two states when the work runs, for work that is recorded; else null.
  void run(const Inputs& x, const DeltaWeights& weights, float epsilon, const RecurrentShape& shape, int64_t layer, const RecurrentStates& states, void* const* moving, Activation out);

  static int64_t state_bytes(const RecurrentShape& shape);
  // Device memory beside the weights for chunks of so many tokens.
  static int64_t scratch_bytes(const ModelConfig& config, int64_t tokens);
  // Why the kernels do not run this model's recurrent layers, a sentence; empty where they do.
  static std::string why_not(const ModelConfig& config);

 private:
  const Device& device_;
  Buffer scratch_;
};

}  // namespace longview::cuda
