// One token's heads, normed, rotated, and K and V written into bf16 pages: what a layer without room for it in its attention does between its
// product and that. A warp takes a head: it waits for little else than its instructions.
#include "kernels/cache/rope_append.cuh"
#include "kernels/cache/rotate_head.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;

// Heads of q, then of k, then of v.
template <int D>
__global__ void __launch_bounds__(kThreads) rope_append_normed_kernel(const RopeAppendArgs p) {
  constexpr int kDims = D / 32;
  const int heads = static_cast<int>(p.heads), kv_heads = static_cast<int>(p.kv.kv_heads), lane = static_cast<int>(threadIdx.x) % 32;
  const int item = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32, behind = item - heads;
  const bool is_value = behind >= kv_heads;
  const int head = is_value ? behind - kv_heads : behind;
  const int64_t position = p.position ? *p.position : p.first_position;
  auto* page = static_cast<__nv_bfloat16*>(p.kv.pages[position / kPageTokens]);
  ptx::wait_for_previous();
  ptx::start_dependents();  // not before: attention's blocks beside the product's would leave no room for those of the product behind
  if (behind < 0) return rotate_query<D>(p, 0, item);
  if (behind >= 2 * kv_heads) return;
  float x[kDims];
  read_kept<D>(p, static_cast<const __nv_bfloat16*>(p.k) + head * D, static_cast<const __nv_bfloat16*>(p.v) + head * D, 0, is_value, x);
  Run<__nv_bfloat16, kDims> values;
#pragma unroll
  for (int i = 0; i < kDims; ++i) values.x[i] = __float2bfloat16(x[i]);
  const int64_t block = ((p.kv.layer * kv_heads + head) * 2 + is_value) * kPageTokens * D;
  *reinterpret_cast<Run<__nv_bfloat16, kDims>*>(page + block + page_offset(position % kPageTokens, lane * kDims)) = values;
}

}  // namespace

Status launch_rope_append_normed(const RopeAppendArgs& args, Stream stream) {
  const int64_t d = args.kv.head_dim;
  const dim3 grid(static_cast<unsigned>(ceil_div(args.heads + 2 * args.kv.kv_heads, kWarps)));
  return launch_dependent(d == 64 ? rope_append_normed_kernel<64> : d == 128 ? rope_append_normed_kernel<128> : rope_append_normed_kernel<256>, grid, kThreads, 0, stream, args);
}

}  // namespace longview::kernels
