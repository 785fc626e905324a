#include "kernels/api/gemm.h"
#include "kernels/common/dequantize.cuh"
#include "kernels/common/launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = 256;

template <WeightType kType>
__global__ void dequantize_kernel(const uint8_t* weight, uint4* out, int64_t groups) {
  const int64_t group = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (group >= groups) return;
  float values[kGroup];
  load_group<kType>(weight, group, values);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float* v = values + 8 * i;
    out[group * 4 + i] = {pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])};
  }
}

}  // namespace

Status launch_dequantize(const DequantizeArgs& args, Stream stream) {
  const BlockShape block = block_shape(args.type);
  if (block.elements == 0 || args.type == WeightType::kE4M3) return kUnsupportedType;
  if (args.count <= 0 || args.count % std::max(block.elements, kGroup) != 0) return kInvalidShape;
  if (!aligned(args.out) || !aligned(args.weight)) return kInvalidAlignment;
  const int64_t groups = args.count / kGroup, blocks = ceil_div(groups, kThreads);
  if (blocks > kLargestGrid) return kInvalidShape;
  for_type(args.type, [&]<WeightType kType>() {
    dequantize_kernel<kType><<<static_cast<unsigned>(blocks), kThreads, 0, cuda(stream)>>>(
        static_cast<const uint8_t*>(args.weight), static_cast<uint4*>(args.out), groups);
  });
  return launched();
}

}  // namespace longview::kernels
