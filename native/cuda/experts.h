// A layer's mixture of experts on the GPU: few tokens read their experts' matrices as they are stored, many go through a product for
// each expert, all in one launch. Nothing of the choice comes to the host.
#pragma once

#include <string>

#include "backend/backend.h"
#include "cuda/device.h"
#include "cuda/products.h"

namespace longview::cuda {

class ExpertMixture {
 public:
  ExpertMixture(const Device& device, Products& products) : device_(device), library_(device.library()), products_(products) {}

  // sum += what the experts of each row of it give, normed first; sum is float32.
  void add(Activation sum, const Products::Norm& norm, const Experts& experts);

  // Device memory beside the weights for chunks of so many tokens.
  static int64_t scratch_bytes(const ModelConfig& config, int64_t tokens);
  // Why the kernels do not run this model's experts, a sentence; empty where they do.
  static std::string why_not(const ModelConfig& config);

  const void* scratch() const { return scratch_.as(); }

 private:
  struct Shape;
  struct Choice;
  void add_few(Activation x, const Experts& experts, const Shape& shape, const Choice& choice, Activation sum);
  void add_many(Activation x, const Experts& experts, const Shape& shape, const Choice& choice, Activation sum);
  void check(kernels::Status status) const { device_.check(status, "running experts"); }

  const Device& device_;
  const kernels::Library& library_;
  Products& products_;
  Buffer scratch_;  // one for all that a call needs
};

}  // namespace longview::cuda
