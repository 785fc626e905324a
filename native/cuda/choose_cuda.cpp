// Whether there is a GPU that does what a model and the settings ask for, and the backend on it.
#include "base/error.h"
#include "cuda/delta_net.h"
#include "cuda/experts.h"
#include "cuda/library.h"
#include "cuda/products.h"

namespace longview {

std::unique_ptr<Backend> make_cuda_backend(const GpuOptions& options) {
  const cuda::Loaded& loaded = cuda::load_library();
  LONGVIEW_CHECK(loaded.library, kInvalidArgument, "%s", loaded.why.c_str());
  return cuda::make_backend(*loaded.library, options);
}

std::string why_not_options(const GpuOptions& options) {
  if (options.weights == GpuWeights::kStored) return "";
  const cuda::Loaded& loaded = cuda::load_library();
  kernels::DeviceProperties properties{};
  if (!loaded.library || loaded.library->device_properties(0, &properties) != kernels::kOk || cuda::has_e4m3(properties)) return "";
  return format("fp8 weights need a GPU of compute capability 9.0 (H100, H200), this one has %d.%d: the weights stay as the file has them.", properties.major, properties.minor);
}

std::string why_not_cuda(const ModelConfig& config) {
  const cuda::Loaded& loaded = cuda::load_library();
  if (!loaded.library) return loaded.why;
  if (config.head_dim > 256) return format("This model's heads have %lld dimensions; the GPU code takes up to 256.", static_cast<long long>(config.head_dim));
  if (const std::string why = cuda::DeltaNet::why_not(config); !why.empty()) return why;
  for (const int64_t width : {config.hidden, config.ffn, config.q_dim(), config.kv_dim()})
    if (width % 8 != 0) return format("This model has matrices of %lld columns; the GPU code takes multiples of 8.", static_cast<long long>(width));
  return cuda::ExpertMixture::why_not(config);
}

}  // namespace longview
