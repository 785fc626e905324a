// The index by mma.sync, blocks by cp.async.
#include "kernels/index/coverage.cuh"
#include "kernels/ptx/mma.cuh"

namespace longview::kernels {
namespace {

struct Sm80 {
  static constexpr int kStages = 1;  // two would leave no room for a long context's masses in the 99 KiB of sm_86 and sm_89

  __device__ void begin() {}
  // A block to the stage of block i, which it is or comes after; nothing where `from` is null. All that read the stage before are done.
  __device__ void load(uint32_t to, const void* from, uint32_t bytes, int) {
    if (from)
      for (uint32_t at = threadIdx.x * 16; at < bytes; at += kIndexThreads * 16) ptx::cp_async_16(to + at, static_cast<const char*>(from) + at, true);
    ptx::cp_async_commit();
  }
  __device__ void wait_queries() {}  // they came with the first block
  __device__ void wait(int) {
    ptx::cp_async_wait<kStages - 1>();
    __syncthreads();
  }
  // score = 128 rows of a times 128 rows of b.
  template <int D>
  __device__ void multiply(float (&score)[64], uint32_t a, uint32_t b) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 64; ++i) score[i] = 0;
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      uint32_t rows[4];
      ptx::ldmatrix_x4(rows, block_address(a, warp * 16 + lane % 16, i * 2 + lane / 16));
#pragma unroll
      for (int j = 0; j < kBlockKeys / 16; ++j) {
        uint32_t columns[4];
        ptx::ldmatrix_x4(columns, block_address(b, j * 16 + lane / 16 * 8 + lane % 8, i * 2 + lane / 8 % 2));
        ptx::mma_bf16(*reinterpret_cast<float(*)[4]>(&score[8 * j]), rows, columns[0], columns[1]);
        ptx::mma_bf16(*reinterpret_cast<float(*)[4]>(&score[8 * j + 4]), rows, columns[2], columns[3]);
      }
    }
  }
};

}  // namespace

Status launch_index_sm80(const SparsePlan& p, Stream stream) {
  return p.args.kv.head_dim == 64 ? launch_index<64, Sm80>(p, stream) : launch_index<128, Sm80>(p, stream);
}
Status launch_coverage_sm80(const SparsePlan& p, Stream stream) {
  return p.args.kv.head_dim == 64 ? launch_coverage<64, Sm80>(p, stream) : launch_coverage<128, Sm80>(p, stream);
}

}  // namespace longview::kernels
