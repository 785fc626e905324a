// Gated attention: its product has a head's queries and, behind them, the gate of its results.
#include "kernels/api/elementwise.h"
#include "kernels/common/bf16.cuh"
#include "kernels/common/gated.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = 256, kVectorsOfBlock = 4 * kThreads;  // of eight elements

__global__ void __launch_bounds__(kThreads) sigmoid_mul_kernel(uint4* x, const uint4* gate, int64_t vectors) {
  ptx::start_dependents();
  ptx::wait_for_previous();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= vectors) return;
  float v[8], g[8];
  unpack_bf16x8(x[i], v);
  unpack_bf16x8(gate[i], g);
#pragma unroll
  for (int j = 0; j < 8; ++j) v[j] = gated(v[j], g[j]);
  x[i] = {pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])};
}

// Whole heads a block: what it reads lies together, and divisions are short.
__global__ void __launch_bounds__(kThreads) split_heads_kernel(const SplitHeadsArgs p, int heads_of_block) {
  ptx::start_dependents();
  ptx::wait_for_previous();
  const int vectors = static_cast<int>(p.head_dim) / 8;  // of half a head
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * heads_of_block;
  const int items = static_cast<int>(min(static_cast<int64_t>(heads_of_block), p.tokens * p.heads - begin)) * 2 * vectors;
  const auto* from = static_cast<const uint4*>(p.x) + begin * 2 * vectors;
  for (int item = static_cast<int>(threadIdx.x); item < items; item += kThreads) {
    const int head = item / (2 * vectors), at = item % (2 * vectors);
    auto* to = static_cast<uint4*>(at < vectors ? p.first : p.last) + begin * vectors;
    to[head * vectors + (at < vectors ? at : at - vectors)] = from[item];
  }
}

}  // namespace

Status launch_sigmoid_mul(const SigmoidMulArgs& args, Stream stream) {
  const int64_t vectors = args.count / 8, blocks = ceil_div(vectors, kThreads);
  if (args.count <= 0 || args.count % 8 != 0 || blocks > kLargestGrid) return kInvalidShape;
  if (!aligned(args.x) || !aligned(args.gate)) return kInvalidAlignment;
  return launch_dependent(sigmoid_mul_kernel, dim3(static_cast<unsigned>(blocks)), kThreads, 0, stream, static_cast<uint4*>(args.x), static_cast<const uint4*>(args.gate), vectors);
}

Status launch_split_heads(const SplitHeadsArgs& args, Stream stream) {
  const int64_t d = args.head_dim;
  if (args.tokens <= 0 || args.tokens > kLargestGrid || args.heads <= 0 || args.heads > 4096 || d <= 0 || d > 1024 || d % 8 != 0) return kInvalidShape;
  if (!aligned(args.x) || !aligned(args.first) || !aligned(args.last)) return kInvalidAlignment;
  const int64_t heads_of_block = std::max<int64_t>(1, kVectorsOfBlock / (d / 4)), blocks = ceil_div(args.tokens * args.heads, heads_of_block);
  if (blocks > kLargestGrid) return kInvalidShape;
  return launch_dependent(split_heads_kernel, dim3(static_cast<unsigned>(blocks)), kThreads, 0, stream, args, static_cast<int>(heads_of_block));
}

}  // namespace longview::kernels
