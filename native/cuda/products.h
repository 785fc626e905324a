// Products with weights on the GPU: by cuBLASLt where the machine has it, else by kernels/gemm; a single row meets several weights in
// one launch.
#pragma once

#include <memory>
#include <span>

#include "backend/backend.h"
#include "cuda/blas.h"
#include "cuda/weights.h"

namespace longview::cuda {

inline kernels::Element element(Activation x) { return x.wide ? kernels::Element::kFloat32 : kernels::Element::kBFloat16; }

inline kernels::GateCurve of(GateCurve curve) { return {curve.linear, curve.cubic}; }

// Products of e4m3 with a scale for each row: kernels/gemm and cuBLASLt have them for one architecture.
inline bool has_e4m3(const kernels::DeviceProperties& p) { return p.major == 9; }

class Products {
 public:
  explicit Products(const Device& device) : device_(device), library_(device.library()), blas_(Blas::open(device)) {}

  // Null where the machine has none.
  const Blas* blas() const { return blas_.get(); }
  // Every weight that these products will meet, before they do.
  void expect(const CudaWeight& weight);

  // As Backend::for_products has it.
  Activation prepared(Activation x, std::initializer_list<const DeviceWeight*> weights);
  // x with codes where one of the weights asks for them, made once for all.
  Activation shared(Activation x, std::span<const Projection> projections);

  // out = x * weight^T (+ bias, which may be null).
  void multiply(Activation x, const DeviceWeight& weight, const DeviceWeight* bias, Activation out);
  // sum += x * weight^T (+ bias), float32. False where it cannot be added at once; then nothing was done.
  bool add(Activation x, const DeviceWeight& weight, const DeviceWeight* bias, Activation sum);

  // out = x * weight^T in bf16, of rows in tiles that each have a matrix of their own (GemmArgs::groups): one of the `count` of which the weight is made.
  void multiply_groups(const void* x, int64_t rows, const DeviceWeight& weight, const int32_t* groups, int64_t count, void* out);

  // What x, float32, is normed by before it is multiplied.
  struct Norm {
    const DeviceWeight& weight;
    float epsilon;
    Activation normed;  // of the shape of x, any content
    bool keep = false;  // it has x normed afterwards
  };
  // One row with several weights; false where one launch does not do that, then nothing was done.
  bool multiply_row(Activation x, std::span<const Projection> projections, kernels::MatvecResult result, const Norm* norm = nullptr, GateCurve curve = {});

 private:
  void* codes(int64_t rows);
  Activation coded(Activation x);
  const void* plain(const CudaWeight& weight);
  void check(kernels::Status status, const char* what) const { device_.check(status, what); }

  const Device& device_;
  const kernels::Library& library_;
  std::unique_ptr<Blas> blas_;
  int64_t widest_ = 0;  // columns of the weights in e4m3
  Buffer dequantized_, codes_;
};

}  // namespace longview::cuda
