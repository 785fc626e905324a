// Which kernels multiply with a weight, by a device that only notes what it is asked for: no GPU is needed.
#include "cuda/products.h"

#include <cstdlib>

#include "check.h"

using namespace longview;

namespace {

std::vector<kernels::GemmArgs> vectors, matrices;
int64_t taken = 0;  // bytes of the device's memory

const kernels::Library& noting() {
  static const kernels::Library library = [] {
    kernels::Library table{};
    table.device_properties = [](int32_t, kernels::DeviceProperties*) { return kernels::kOk; };
    table.open_device = [](int32_t, kernels::Stream*) { return kernels::kOk; };
    table.close_stream = [](kernels::Stream) { return kernels::kOk; };
    table.allocate = [](void** pointer, size_t bytes) {
      taken += static_cast<int64_t>(bytes);
      *pointer = std::malloc(64);
      return kernels::kOk;
    };
    table.release = [](void* pointer) { return std::free(pointer), kernels::kOk; };
    table.dequantize = [](const kernels::DequantizeArgs&, kernels::Stream) { return kernels::kOk; };
    table.matvec = [](const kernels::GemmArgs& args, kernels::Stream) { return vectors.push_back(args), kernels::kOk; };
    table.gemm = [](const kernels::GemmArgs& args, kernels::Stream) { return matrices.push_back(args), kernels::kOk; };
    return table;
  }();
  return library;
}

}  // namespace

TEST("logits of several rows take no copy of a quantised output matrix, and no row goes alone") {
  setenv("LONGVIEW_CUBLASLT", "off", 1);
  constexpr int64_t kVocabulary = 1000, kHidden = 512;
  const cuda::Device device(noting(), 0);
  cuda::Products products(device);
  cuda::CudaWeight weight;
  weight.buffer = std::make_shared<cuda::Buffer>(device, 1, "the weights");
  weight.rows = kVocabulary, weight.cols = kHidden;
  const uint16_t x = 0;
  float out = 0;
  const auto multiply = [&](kernels::WeightType type, int64_t rows, bool wide) {
    weight.type = type;
    vectors.clear();
    matrices.clear();
    taken = 0;
    products.multiply({const_cast<uint16_t*>(&x), rows, kHidden}, weight, nullptr, {&out, rows, kVocabulary, wide});
  };
  for (int64_t rows = kernels::kMatvecRows + 1; rows <= 64; ++rows) {
    multiply(kernels::WeightType::kQ6_K, rows, true);
    CHECK(taken == 0 && matrices.empty());
    int64_t done = 0;
    for (const kernels::GemmArgs& args : vectors) {
      CHECK(args.m > 1 && args.m <= kernels::kMatvecRows && args.n == kVocabulary && args.k == kHidden && args.type == kernels::WeightType::kQ6_K);
      CHECK(args.x == &x + done * kHidden && args.out == &out + done * kVocabulary && args.element == kernels::Element::kFloat32);
      done += args.m;
    }
    CHECK(done == rows);
  }
  multiply(kernels::WeightType::kBFloat16, 64, true);
  CHECK(taken == 0 && vectors.empty() && matrices.size() == 1);
  multiply(kernels::WeightType::kQ6_K, 64, false);  // of a layer: what it takes is planned
  CHECK(taken == 2 * kVocabulary * kHidden && vectors.empty() && matrices.size() == 1 && matrices[0].type == kernels::WeightType::kBFloat16);
}

TEST_MAIN()
