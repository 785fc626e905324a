// NVIDIA's cuBLASLt for the products of prefill, where the machine has it: found and opened at run time, never linked. It
// comes with the CUDA toolkit and with PyTorch; without it kernels/gemm does the same work.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "cuda/device.h"

namespace longview::cuda {

struct BlasApi;

class Blas {
 public:
  // Looks where LONGVIEW_CUBLASLT says (a file; "off": nowhere), under CUDA_PATH and CUDA_HOME, in /usr/local/cuda*, on the
  // loader's path and in the Python environments of PATH. Null where there is none that works.
  static std::unique_ptr<Blas> open(const Device& device);
  // The same of functions that were found, for tests: null where they give no handle.
  static std::unique_ptr<Blas> open(const Device& device, const BlasApi& api);
  ~Blas();
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;

  // "cuBLASLt 13.1.0".
  const std::string& name() const { return name_; }

  // out [m, n] = x [m, k] * weight [n, k]^T (+ bias [n]), all bf16, sums float32; or out += the product, float32. With `e4m3` x
  // and weight are of kernels::WeightType::kE4M3. Queued. False where cuBLASLt has no kernel for it; then nothing was done.
  struct Product {
    const void *x, *weight, *bias;  // bias may be null; null where it is added
    void* out;
    int64_t m, n, k;
    bool add = false;
    bool e4m3 = false;
  };
  bool multiply(const Product& product);

 private:
  struct Plan;
  using Key = std::tuple<int64_t, int64_t, int64_t, bool, bool, bool>;

  Blas(const Device& device, const BlasApi& api);
  std::unique_ptr<Plan> plan(const Product& product) const;
  static bool point(const Plan& plan, const Product& product);

  const Device& device_;
  const BlasApi& api_;
  void* handle_ = nullptr;
  std::string name_;
  Buffer workspace_;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace longview::cuda
