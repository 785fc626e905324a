// Weights on the GPU: matrices as bf16 or in their stored quantisation, vectors as float32 and, behind that, as bf16.
#pragma once

#include <map>
#include <memory>

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

// Brings weights from the mapped file through two page-locked buffers: one is filled while the other travels. Views of the
// same bytes (tied embeddings) share their memory.
class Uploader {
 public:
  explicit Uploader(const Device& device);
  ~Uploader();
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;

  std::unique_ptr<CudaWeight> upload(const TensorView& view);
  // Device memory that it takes.
  static int64_t bytes_of(const TensorView& view);

 private:
  static constexpr int64_t kVectorBytes = 4 + 2;  // of an element

  std::shared_ptr<Buffer> matrix(const TensorView& view);

  const Device& device_;
  void* staging_ = nullptr;
  std::map<const std::byte*, std::weak_ptr<Buffer>> known_;
};

}  // namespace longview::cuda
