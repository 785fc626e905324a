// Weights on the GPU: matrices as bf16, in their stored quantisation or as e4m3, those of WeightUse::kGates always as bf16; vectors as float32 and, behind that, as bf16.
#pragma once

#include <map>
#include <memory>
#include <utility>

#include "backend/backend.h"
#include "cuda/device.h"

namespace longview::cuda {

struct CudaWeight final : DeviceWeight {
  std::shared_ptr<Buffer> buffer;
  kernels::WeightType type = kernels::WeightType::kBFloat16;
  int64_t rows = 0, cols = 0;

  // Of a vector: the second copy, which cuBLASLt adds as a bias.
  const void* narrow() const { return buffer->as<float>() + cols; }
};
inline const CudaWeight& cuda(const DeviceWeight& weight) { return static_cast<const CudaWeight&>(weight); }
// Of a vector that may not be there.
inline const float* floats(const DeviceWeight* vector) { return vector ? cuda(*vector).buffer->as<float>() : nullptr; }

// Brings weights from the mapped file through two page-locked buffers: one is filled while the other travels. Views of the
// same bytes (tied embeddings) share their memory.
class Uploader {
 public:
  // `e4m3`: products of layers are kept so where their shape allows it, whatever the file has.
  Uploader(const Device& device, bool e4m3);
  ~Uploader();
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;

  std::unique_ptr<CudaWeight> upload(const TensorView& view, WeightUse use);
  // Matrices of one shape and type, one behind the other, as the file has them.
  std::unique_ptr<CudaWeight> upload_all(std::span<const TensorView> matrices);
  // Device memory that it takes.
  int64_t bytes_of(const TensorView& view, WeightUse use) const;
  // Backend::few_tokens_cost of a layer's product, as measured on an H200, but of e4m3, which was taken for like quantised types: one row goes by faster
  // kernels than several.
  double few_tokens_cost(const TensorView& view) const;

 private:
  static constexpr int64_t kVectorBytes = 4 + 2;  // of an element

  kernels::WeightType type_of(const TensorView& view, WeightUse use) const;
  std::shared_ptr<Buffer> matrix(const TensorView& view, kernels::WeightType type);
  void copy(const TensorView& view, kernels::WeightType type, char* to);
  std::shared_ptr<Buffer> to_e4m3(const TensorView& view);

  const Device& device_;
  const bool e4m3_;
  void* staging_ = nullptr;
  std::map<std::pair<const std::byte*, kernels::WeightType>, std::weak_ptr<Buffer>> known_;
};

}  // namespace longview::cuda
