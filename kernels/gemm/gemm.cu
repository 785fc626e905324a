#include "kernels/gemm/gemm.cuh"

#include "kernels/common/launch.cuh"

namespace longview::kernels {
namespace {

// Below this, tiles of 128 x 256 leave too much of themselves empty.
constexpr int64_t kLeastRowsSm90 = 64;

}  // namespace

Status launch_gemm(const GemmArgs& args, Stream stream) {
  if (args.m <= 0 || args.n <= 0 || args.k <= 0 || args.k % 8 != 0) return kInvalidShape;
  if (args.add && (args.bias || args.element != Element::kFloat32)) return kInvalidShape;
  if (args.groups && (args.m % kGroupRows != 0 || args.group_count < 1 || args.bias || args.add || args.type != WeightType::kBFloat16)) return kInvalidShape;
  const bool coded = args.type == WeightType::kE4M3;
  if (!coded && args.type != WeightType::kBFloat16) return kUnsupportedType;
  if (coded && (args.k % kE4M3ColumnStep != 0 || args.k > kMostE4M3Columns)) return kInvalidShape;
  if (!aligned(args.x) || !aligned(args.weight) || !aligned(args.out)) return kInvalidAlignment;
  const int multiprocessors = device_attribute(cudaDevAttrMultiProcessorCount);
  if (coded) return on_sm90(args.architecture) ? launch_gemm_sm90(args, multiprocessors, stream) : kUnsupportedType;
  if (on_sm90(args.architecture) && args.m >= kLeastRowsSm90) return launch_gemm_sm90(args, multiprocessors, stream);
  return launch_gemm_sm80(args, stream);
}

}  // namespace longview::kernels
