// How blocks come to shared memory and are multiplied on sm_90 (index/row_sums): the copy engine brings them, two warpgroups multiply.
#pragma once

#include "kernels/index/row_sums.cuh"
#include "kernels/ptx/mbarrier.cuh"
#include "kernels/ptx/tma.cuh"
#include "kernels/ptx/wgmma.cuh"

namespace longview::kernels {

struct Sm90 {
  template <int D>
  using Operands = WideOperands<D>;
  static constexpr int kStages = 2;
  uint32_t barriers;  // one a stage

  __device__ void begin() {
    __shared__ uint64_t storage[kStages];
    barriers = ptx::shared_address(storage);
    if (threadIdx.x == 0) {
      ptx::mbarrier_init(barriers, 1);
      ptx::mbarrier_init(barriers + 8, 1);
      ptx::fence_mbarrier_init();
    }
    __syncthreads();
  }
  // A block to the stage of block i, which it is or comes after; nothing where `from` is null. All that read the stage before are done.
  __device__ void load(uint32_t to, const void* from, uint32_t bytes, int i) {
    if (threadIdx.x != 0 || !from) return;
    const uint32_t barrier = barriers + 8 * (i % kStages);
    ptx::mbarrier_arrive_expect(barrier, bytes);
    ptx::bulk_load(to, from, bytes, barrier);
  }
  __device__ void wait_queries() {
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    ptx::fence_proxy_async();
    __syncthreads();
  }
  __device__ void wait(int i) { ptx::mbarrier_wait(barriers + 8 * (i % kStages), i / kStages & 1); }
  // score = 128 rows of a times 128 rows of b, added to what is there where `add`.
  template <int D>
  __device__ void multiply(float (&score)[64], uint32_t a, uint32_t b, bool add = false) {
    constexpr int kTile = kBlockKeys * 128 / 16;
    const uint64_t rows = ptx::wgmma_descriptor(a + threadIdx.x / 128 * 64 * 128), columns = ptx::wgmma_descriptor(b);
    ptx::wgmma_hold(score);
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < D / 16; ++i) ptx::wgmma_m64n128k16(score, rows + i / 4 * kTile + i % 4 * 2, columns + i / 4 * kTile + i % 4 * 2, add || i > 0);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    ptx::wgmma_hold(score);
  }
};

}  // namespace longview::kernels
