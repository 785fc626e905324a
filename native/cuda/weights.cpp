#include "cuda/weights.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/half.h"
#include "model/quant_formats.h"

namespace longview::cuda {
namespace {

constexpr int64_t kStagingBytes = int64_t{8} << 20;  // of one of the two
constexpr int64_t kColumnStep = 8;                   // columns that the kernels take at a time

bool plain(DType type) { return format_of(type).block_elements == 1; }

// As the file has it, but for what the kernels read as bf16.
kernels::WeightType stored_type(const TensorView& view) { return plain(view.type) ? kernels::WeightType::kBFloat16 : static_cast<kernels::WeightType>(view.type); }

// A matrix as matrix() brings it.
int64_t loaded_bytes(const TensorView& view, kernels::WeightType type) { return type == kernels::WeightType::kBFloat16 ? view.rows * view.cols * 2 : view.bytes; }

}  // namespace

kernels::WeightType Uploader::type_of(const TensorView& view, WeightUse use) const {
  const bool fits = view.rows > 1 && view.cols % kernels::kE4M3ColumnStep == 0 && view.cols <= kernels::kMostE4M3Columns;
  if (e4m3_ && use == WeightUse::kLayerProduct && fits) return kernels::WeightType::kE4M3;
  return use == WeightUse::kGates ? kernels::WeightType::kBFloat16 : stored_type(view);
}

int64_t Uploader::bytes_of(const TensorView& view, WeightUse use) const {
  if (view.rows == 1) return view.cols * kVectorBytes;
  const kernels::WeightType type = type_of(view, use);
  return type == kernels::WeightType::kE4M3 ? kernels::e4m3_bytes(view.rows, view.cols) : loaded_bytes(view, type);
}

double Uploader::few_tokens_cost(const TensorView& view) const { return type_of(view, WeightUse::kLayerProduct) == kernels::WeightType::kBFloat16 ? 1.3 : 2.4; }

Uploader::Uploader(const Device& device, bool e4m3) : device_(device), e4m3_(e4m3) {
  device_.check(device_.library().allocate_host(&staging_, static_cast<size_t>(2 * kStagingBytes)), "making room to load weights");
}

Uploader::~Uploader() { device_.library().release_host(staging_); }

std::unique_ptr<CudaWeight> Uploader::upload(const TensorView& view, WeightUse use) {
  auto weight = std::make_unique<CudaWeight>();
  weight->rows = view.rows;
  weight->cols = view.cols;
  if (view.rows == 1) {
    std::vector<std::byte> both(static_cast<size_t>(view.cols * kVectorBytes));
    auto* values = reinterpret_cast<float*>(both.data());
    auto* narrow = reinterpret_cast<uint16_t*>(values + view.cols);
    dequantize_row(view.type, view.data, values, view.cols);
    for (int64_t i = 0; i < view.cols; ++i) narrow[i] = float_to_bf16(values[i]);
    weight->buffer = std::make_shared<Buffer>(device_, view.cols * kVectorBytes, "the weights");
    device_.check(device_.library().copy_to_device(weight->buffer->as(), both.data(), both.size(), device_.stream()), "loading weights");
    device_.check(device_.library().synchronize(device_.stream()), "loading weights");
    return weight;
  }
  LONGVIEW_CHECK(view.cols % kColumnStep == 0, kUnsupportedArchitecture, "A matrix of this model has %lld columns; the GPU code takes multiples of %lld. Set longview.device to \"cpu\".",
                 static_cast<long long>(view.cols), static_cast<long long>(kColumnStep));
  weight->type = type_of(view, use);
  std::weak_ptr<Buffer>& known = known_[{view.data, weight->type}];
  weight->buffer = known.lock();
  if (!weight->buffer) known = weight->buffer = weight->type == kernels::WeightType::kE4M3 ? to_e4m3(view) : matrix(view, weight->type);
  return weight;
}

// By way of bf16, for which there is room: the workspace is taken after the weights.
std::shared_ptr<Buffer> Uploader::to_e4m3(const TensorView& view) {
  const kernels::Library& library = device_.library();
  const std::shared_ptr<Buffer> stored = matrix(view, stored_type(view));
  Buffer narrow;
  if (!plain(view.type)) {
    narrow = Buffer(device_, view.rows * view.cols * 2, "the weights");
    device_.check(library.dequantize({stored->as(), static_cast<kernels::WeightType>(view.type), narrow.as(), view.rows * view.cols}, device_.stream()), "loading weights");
  }
  auto codes = std::make_shared<Buffer>(device_, kernels::e4m3_bytes(view.rows, view.cols), "the weights");
  device_.check(library.quantize_rows({plain(view.type) ? stored->as() : narrow.as(), codes->as(), view.rows, view.cols}, device_.stream()), "loading weights");
  device_.check(library.synchronize(device_.stream()), "loading weights");
  return codes;
}

std::unique_ptr<CudaWeight> Uploader::upload_all(std::span<const TensorView> matrices) {
  const TensorView& first = matrices.front();
  const auto count = static_cast<int64_t>(matrices.size());
  auto weight = std::make_unique<CudaWeight>();
  weight->rows = count * first.rows;
  weight->cols = first.cols;
  weight->type = type_of(first, WeightUse::kAny);
  const int64_t bytes = loaded_bytes(first, weight->type);
  weight->buffer = std::make_shared<Buffer>(device_, count * bytes, "the weights");
  for (int64_t i = 0; i < count; ++i) copy(matrices[static_cast<size_t>(i)], weight->type, weight->buffer->as<char>() + i * bytes);
  return weight;
}

std::shared_ptr<Buffer> Uploader::matrix(const TensorView& view, kernels::WeightType type) {
  auto buffer = std::make_shared<Buffer>(device_, loaded_bytes(view, type), "the weights");
  copy(view, type, buffer->as<char>());
  return buffer;
}

// Waits until all of it is there.
void Uploader::copy(const TensorView& view, kernels::WeightType type, char* to) {
  const bool convert = type == kernels::WeightType::kBFloat16 && view.type != DType::kBF16;
  const int64_t total = loaded_bytes(view, type);
  const kernels::Library& library = device_.library();
  std::vector<float> values;
  for (int64_t done = 0, part = 0; done < total; ++part) {
    const int64_t bytes = std::min(kStagingBytes, total - done);
    auto* half = static_cast<std::byte*>(staging_) + part % 2 * kStagingBytes;
    if (convert) {
      const int64_t first = done / 2, count = bytes / 2;
      values.resize(static_cast<size_t>(count));
      dequantize_row(view.type, view.data + row_bytes(view.type, first), values.data(), count);
      auto* out = reinterpret_cast<uint16_t*>(half);
      for (int64_t i = 0; i < count; ++i) out[i] = float_to_bf16(values[static_cast<size_t>(i)]);
    } else {
      std::memcpy(half, view.data + done, static_cast<size_t>(bytes));
    }
    // The copy before this one must be over before its half is filled again.
    device_.check(library.synchronize(device_.stream()), "loading weights");
    device_.check(library.copy_to_device(to + done, half, static_cast<size_t>(bytes), device_.stream()), "loading weights");
    done += bytes;
  }
  device_.check(library.synchronize(device_.stream()), "loading weights");
}

}  // namespace longview::cuda
