// Probes over e4m3 pages on sm_90: queries are rounded to e4m3, as attention does it.
#include "kernels/attention/rows_e4m3_sm90.cuh"
#include "kernels/index/coverage.cuh"
#include "kernels/index/machine_sm90.cuh"
#include "kernels/index/probe_weights.cuh"

namespace longview::kernels {
namespace {

template <int D>
struct NarrowOperands {
  using Rows = RowsE4M3Sm90<D>;
  static constexpr int kPieces = 1;
  static constexpr uint32_t kBlockBytes = Rows::Stages::kCodeBytes + Rows::Stages::kScaleBytes, kQueryBytes = 2 * Rows::kWarpgroupBytes, kStageBytes = Rows::Stages::kKeyBytes;
  static __device__ const void* keys(const PagedKv& kv, int page, int kv_head) { return static_cast<const char*>(kv.pages[page]) + (kv.layer * kv.kv_heads + kv_head) * 2 * Rows::kBlockBytes; }
  template <typename Place>
  static __device__ void load_queries(uint32_t to, Place place) {
    const int half = static_cast<int>(threadIdx.x) / 128;
    Rows::template load_queries<128>(to + half * Rows::kWarpgroupBytes, [&](int row) { return place(half * 64 + row); }, static_cast<int>(threadIdx.x) % 128);
  }
};

struct NarrowSm90 : Sm90 {
  template <int D>
  using Operands = NarrowOperands<D>;
  template <int D>
  __device__ void multiply(float (&score)[64], uint32_t a, uint32_t b, bool = false) {
    const uint32_t own = a + threadIdx.x / 128 * Operands<D>::Rows::kWarpgroupBytes, row = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
    multiply_codes<D>(score, own, b);
    ptx::wgmma_wait<0>();
    ptx::wgmma_hold(score);
    const float of_keys = ptx::load_shared(b + kBlockKeys * D);
    const float scale[2] = {ptx::load_shared(own + 64 * D + row * 4) * of_keys, ptx::load_shared(own + 64 * D + row * 4 + 32) * of_keys};
#pragma unroll
    for (int i = 0; i < 64; ++i) score[i] *= scale[i / 2 % 2];
  }
};

}  // namespace

Status launch_coverage_e4m3_sm90(const SparsePlan& p, Stream stream) { return p.args.kv.head_dim == 64 ? launch_coverage<64, NarrowSm90>(p, stream) : launch_coverage<128, NarrowSm90>(p, stream); }
Status launch_probe_weights_e4m3_sm90(const SparsePlan& p, int64_t first_kv_head, int64_t count, Stream stream) {
  return p.args.kv.head_dim == 64 ? launch_probe_weights<64, NarrowSm90>(p, first_kv_head, count, stream) : launch_probe_weights<128, NarrowSm90>(p, first_kv_head, count, stream);
}

}  // namespace longview::kernels
