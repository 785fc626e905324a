// out [M, N] = x [M, K] * weight [N, K]^T + bias on the tensor cores of sm_80: tiles of 128 x 128, K in steps of 32 through
// a ring of four stages filled by cp.async; eight warps of 64 x 32 each.
#include "kernels/gemm/gemm.cuh"

#include "kernels/common/bf16.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/cp_async.cuh"
#include "kernels/ptx/mma.cuh"

namespace longview::kernels {
namespace {

constexpr int kTile = kGroupRows, kStep = 32, kStages = 4, kThreads = 256;
constexpr int kRowBytes = kStep * 2, kTileBytes = kTile * kRowBytes, kStageBytes = 2 * kTileBytes;
constexpr int kSharedBytes = kStages * kStageBytes;
// Tiles of N that follow each other over the same tiles of M: what a wave of blocks reads stays in the second-level cache.
constexpr int64_t kBand = 8;

// Rows of 64 bytes, chunks of 16: two rows share the 32 banks, so the chunk turns with every second row.
__device__ inline uint32_t swizzled(int row, int chunk) { return row * kRowBytes + ((chunk ^ ((row >> 1) & 3)) << 4); }

struct Loader {
  const char* base;  // of the matrix, at the tile's first row
  int64_t stride;    // bytes of a row
  int64_t rows, k;   // rows left, columns

  // A tile of 128 rows is 512 chunks: two a thread. What lies outside the matrix becomes zero.
  __device__ void load(uint32_t shared, int64_t column) const {
#pragma unroll
    for (int i = 0; i < kTile * 4 / kThreads; ++i) {
      const int item = threadIdx.x + i * kThreads, row = item / 4, chunk = item % 4;
      const bool valid = row < rows && column + chunk * 8 < k;
      const char* from = valid ? base + row * stride + (column + chunk * 8) * 2 : base;
      ptx::cp_async_16(shared + swizzled(row, chunk), from, valid);
    }
  }
};

template <typename Out>
__device__ inline void store(Out* out, int64_t row, int64_t column, int64_t m, int64_t n, bool add, float a, float b) {
  if (row >= m) return;
  Out* to = out + row * n + column;
  if constexpr (sizeof(Out) == 4) {
    if (column < n) to[0] = (add ? to[0] : 0.0f) + a;
    if (column + 1 < n) to[1] = (add ? to[1] : 0.0f) + b;
  } else if (column + 1 < n && n % 2 == 0) {
    *reinterpret_cast<uint32_t*>(to) = pack_bf16(a, b);
  } else {
    if (column < n) to[0] = __float2bfloat16(a);
    if (column + 1 < n) to[1] = __float2bfloat16(b);
  }
}

template <typename Out>
__global__ void __launch_bounds__(kThreads, 2) gemm_sm80_kernel(const GemmArgs p, int64_t tiles_m, int64_t tiles_n) {
  extern __shared__ __align__(128) char shared_bytes[];
  const uint32_t shared = ptx::shared_address(shared_bytes);

  // Bands of kBand column tiles, row tiles within a band one after another.
  const int64_t band = blockIdx.x / (kBand * tiles_m), in_band = blockIdx.x % (kBand * tiles_m);
  const int64_t band_width = min(kBand, tiles_n - band * kBand);
  const int64_t first_row = in_band / band_width * kTile, first_column = (band * kBand + in_band % band_width) * kTile;

  const Loader x{static_cast<const char*>(p.x) + first_row * p.k * 2, p.k * 2, p.m - first_row, p.k};
  const int64_t group = p.groups ? p.groups[first_row / kTile] : 0;
  if (group < 0) return;
  const Loader w{static_cast<const char*>(p.weight) + (group * p.n + first_column) * p.k * 2, p.k * 2, p.n - first_column, p.k};
  const int64_t steps = ceil_div(p.k, kStep);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_row = warp / 4 * 64, warp_column = warp % 4 * 32;

#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < steps) {
      x.load(shared + stage * kStageBytes, stage * kStep);
      w.load(shared + stage * kStageBytes + kTileBytes, stage * kStep);
    }
    ptx::cp_async_commit();
  }

  float sum[4][4][4] = {};
  for (int64_t step = 0; step < steps; ++step) {
    ptx::cp_async_wait<kStages - 2>();
    __syncthreads();
    const int64_t next = step + kStages - 1;
    if (next < steps) {
      const uint32_t to = shared + static_cast<uint32_t>(next % kStages) * kStageBytes;
      x.load(to, next * kStep);
      w.load(to + kTileBytes, next * kStep);
    }
    ptx::cp_async_commit();

    const uint32_t at = shared + static_cast<uint32_t>(step % kStages) * kStageBytes;
#pragma unroll
    for (int half = 0; half < kStep / 16; ++half) {
      uint32_t a[4][4], b[2][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) ptx::ldmatrix_x4(a[i], at + swizzled(warp_row + i * 16 + lane % 16, half * 2 + lane / 16));
      // Matrices in the order (columns 0-7, k low), (0-7, k high), (8-15, low), (8-15, high).
#pragma unroll
      for (int j = 0; j < 2; ++j)
        ptx::ldmatrix_x4(b[j], at + kTileBytes + swizzled(warp_column + j * 16 + lane / 16 * 8 + lane % 8, half * 2 + lane / 8 % 2));
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) ptx::mma_bf16(sum[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    }
  }

  auto* out = static_cast<Out*>(p.out);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int64_t column = first_column + warp_column + j * 8 + lane % 4 * 2;
    const float bias0 = p.bias && column < p.n ? p.bias[column] : 0.0f, bias1 = p.bias && column + 1 < p.n ? p.bias[column + 1] : 0.0f;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t row = first_row + warp_row + i * 16 + lane / 4;
      store(out, row, column, p.m, p.n, p.add, sum[i][j][0] + bias0, sum[i][j][1] + bias1);
      store(out, row + 8, column, p.m, p.n, p.add, sum[i][j][2] + bias0, sum[i][j][3] + bias1);
    }
  }
}

template <typename Out>
Status launch(const GemmArgs& args, Stream stream) {
  const int64_t tiles_m = ceil_div(args.m, kTile), tiles_n = ceil_div(args.n, kTile);
  if (tiles_m * tiles_n > kLargestGrid) return kInvalidShape;
  if (const Status error = allow_shared(gemm_sm80_kernel<Out>, kSharedBytes)) return error;
  gemm_sm80_kernel<Out><<<static_cast<unsigned>(tiles_m * tiles_n), kThreads, kSharedBytes, cuda(stream)>>>(args, tiles_m, tiles_n);
  return launched();
}

}  // namespace

Status launch_gemm_sm80(const GemmArgs& args, Stream stream) {
  return args.element == Element::kFloat32 ? launch<float>(args, stream) : launch<__nv_bfloat16>(args, stream);
}

}  // namespace longview::kernels
