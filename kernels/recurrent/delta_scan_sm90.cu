// From chunk to chunk as delta_scan.cu goes, on the tensor cores of sm_90. A block has 64 columns of a value head's S. One warp brings the
// chunks by the copy engine, stages ahead; a warpgroup keeps S transposed in its registers, [64 columns, 128 dimensions] in float32, so that
// what one product leaves is the first factor of the next as it stands. All products are of columns with tokens or dimensions:
//   u^T = (b v - b exp(G) (k S))^T T^T, o^T = exp(G) (q S)^T + u^T P^T, S^T = exp(G_last) S^T + (exp(G_last - G) u)^T k
// q S and P u are not needed for the next chunk: they run while what is needed becomes a factor, and results are stored under the next k S.
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"
#include "kernels/ptx/f16.cuh"
#include "kernels/ptx/mbarrier.cuh"
#include "kernels/ptx/mma.cuh"
#include "kernels/ptx/shared.cuh"
#include "kernels/ptx/tma.cuh"
#include "kernels/ptx/wgmma.cuh"
#include "kernels/recurrent/chunk_tile.cuh"
#include "kernels/recurrent/delta_net.cuh"

namespace longview::kernels {
namespace {

constexpr int D = 128, kColumns = 64, kReaders = 4, kThreads = kReaders * 32 + 32, kStages = 3;
using Rows = ChunkRows<D>;
// Of a stage, in bytes: keys, queries, the block's columns of b v, then the tile, whose matrices have room for the quarter behind the
// diagonal here. It stays zeros: the products of a half would be other accumulators.
constexpr uint32_t kQueries = Rows::kBytes, kValues = 2 * Rows::kBytes, kSolved = kValues + Rows::kPanel, kWeights = kSolved + kChunk * kChunk * 2, kFactors = kWeights + kChunk * kChunk * 2;
constexpr uint32_t kDecays = kFactors, kSeen = kDecays + kChunk * 4, kRests = kSeen + kChunk * 4, kStageBytes = (kRests + kChunk * 4 + 1023) / 1024 * 1024;
constexpr uint32_t kZeros = ChunkTile::kRight, kZeroBytes = ChunkTile::kHalf * ChunkTile::kHalf * 2;  // of a matrix
constexpr int kSharedBytes = kStages * kStageBytes + 1024;  // swizzles need multiples of 1,024
static_assert(Rows::kPanel == kChunk * kColumns * 2 && ChunkTile::kSeen - ChunkTile::kDecays == kSeen - kDecays && ChunkTile::kRests - ChunkTile::kDecays == kRests - kDecays);

__device__ inline void clear_zeros(uint32_t stages) {
  for (uint32_t at = threadIdx.x * 16; at < kStages * kZeroBytes; at += kThreads * 16) {
    const uint32_t to = stages + at / kZeroBytes * kStageBytes + kZeros + at % kZeroBytes;
    ptx::store_shared(to + kSolved, float4{});
    ptx::store_shared(to + kWeights, float4{});
  }
  ptx::fence_proxy_async();
}

// By one thread.
__device__ inline void bring(const DeltaPlan& p, int64_t chunk, int64_t key_head, uint32_t to, uint32_t full) {
  const DeltaNetArgs& a = p.args;
  const int64_t head = blockIdx.y;
  ptx::mbarrier_arrive_expect(full, kSolved + ChunkTile::kBytes);
  ptx::bulk_load(to, Rows::of(p, chunk, a.key_heads + key_head), Rows::kBytes, full);
  ptx::bulk_load(to + kQueries, Rows::of(p, chunk, key_head), Rows::kBytes, full);
  ptx::bulk_load(to + kValues, Rows::of(p, chunk, 2 * a.key_heads + head) + blockIdx.x * Rows::kPanel, Rows::kPanel, full);
  const char* tile = ChunkTile::of(p, chunk, head);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t matrix = to + (i ? kWeights : kSolved);
    const char* from = tile + (i ? ChunkTile::kWeights : ChunkTile::kSolved);
    ptx::bulk_load(matrix, from, ChunkTile::kRight, full);
    ptx::bulk_load(matrix + kZeros + kZeroBytes, from + ChunkTile::kRight, ChunkTile::kMatrix - ChunkTile::kRight, full);
  }
  ptx::bulk_load(to + kFactors, tile + ChunkTile::kDecays, ChunkTile::kBytes - ChunkTile::kDecays, full);
}

// What a product leaves, as a first factor.
template <int kSteps>
__device__ inline void pack(uint32_t (&to)[kSteps][4], const float (&from)[8 * kSteps]) {
#pragma unroll
  for (int i = 0; i < kSteps; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) to[i][j] = ptx::pack_f16_within(from[8 * i + 2 * j], from[8 * i + 2 * j + 1]);
}

// A factor of each of the thread's tokens: of every eight two.
__device__ inline void read_factors(float2 (&to)[8], uint32_t from) {
#pragma unroll
  for (int j = 0; j < 8; ++j) to[j] = ptx::load_shared_pair(from + j * 32 + threadIdx.x % 4 * 8);
}

// Queues d = S^T rows^T: columns with tokens.
__device__ inline void multiply_rows(float (&d)[32], const uint32_t (&s)[8][4], uint32_t rows) {
  const uint64_t at = ptx::wgmma_descriptor(rows);
#pragma unroll
  for (int i = 0; i < D / 16; ++i) ptx::wgmma_m64k16_f16(d, s[i], at + i / 4 * (Rows::kPanel / 16) + i % 4 * 2, i > 0);
  ptx::wgmma_commit();
}
// Queues d = x^T matrix^T, a matrix of the tile, plus d where `add` is not 0.
__device__ inline void multiply_lower(float (&d)[32], const uint32_t (&x)[4][4], uint32_t matrix, int32_t add) {
  const uint64_t at = ptx::wgmma_descriptor_64(matrix);
#pragma unroll
  for (int i = 0; i < kChunk / 16; ++i) ptx::wgmma_m64k16_f16(d, x[i], at + i / 2 * (ChunkTile::kRight / 16) + i % 2 * 2, add || i > 0);
  ptx::wgmma_commit();
}

__global__ void __launch_bounds__(kThreads, 1) delta_scan_sm90_kernel(const DeltaPlan p) {
  extern __shared__ char shared_bytes[];
  __shared__ uint64_t barriers[2 * kStages];
  const uint32_t stages = (ptx::shared_address(shared_bytes) + 1023) & ~1023u;
  const uint32_t full = ptx::shared_address(barriers), empty = full + kStages * 8;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      ptx::mbarrier_init(full + 8 * i, 1);
      ptx::mbarrier_init(empty + 8 * i, kReaders);
    }
    ptx::fence_mbarrier_init();
  }
  clear_zeros(stages);
  __syncthreads();
  ptx::start_dependents();

  const DeltaNetArgs& a = p.args;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, chunks = static_cast<int>(p.chunks);
  uint32_t stage = 0, parity = 0;
  const auto advance = [&] {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  };
  if (warp == kReaders) {
    if (lane != 0) return;
    const int64_t key_head = key_head_of(p, blockIdx.y);
    ptx::wait_for_previous();
    for (int chunk = 0; chunk < chunks; ++chunk) {
      ptx::mbarrier_wait(empty + 8 * stage, parity ^ 1);  // passes at once in the first round
      bring(p, chunk, key_head, stages + stage * kStageBytes, full + 8 * stage);
      advance();
    }
    return;
  }

  // The thread has columns `column` and 8 behind it, and of every eight tokens or dimensions two from lane % 4 * 2 on.
  const int64_t head = blockIdx.y, first_column = static_cast<int64_t>(blockIdx.x) * kColumns + warp * 16, column = first_column + lane / 4;
  // The convolution has begun, so all before it is over: S is there.
  float s[64], u[32], o[32];
  uint32_t results[16] = {};  // o of the chunk before, pairs of tokens
  const float* before = reinterpret_cast<const float*>(state_before(p)) + (head * D + lane % 4 * 2) * D + column;
#pragma unroll
  for (int i = 0; i < 64; ++i) s[i] = before[(i / 4 * 8 + i % 2) * D + i / 2 % 2 * 8];
  ptx::wait_for_previous();

  auto* out = static_cast<__nv_bfloat16*>(a.out) + (lane / 4 * a.value_heads + head) * D + first_column + lane % 4 * 2;
  const int64_t token_stride = a.value_heads * D;
  const auto store = [&](int chunk) {
    const int64_t first = static_cast<int64_t>(chunk) * kChunk;
    const int valid = chunk < 0 ? 0 : static_cast<int>(min(a.tokens - first, static_cast<int64_t>(kChunk)));
    auto* to = out + first * token_stride;
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const uint32_t pair = ptx::transpose(results[2 * j + r]);  // two columns of token 8 j + lane / 4
        if (8 * j + lane / 4 < valid) *reinterpret_cast<uint32_t*>(to + 8 * j * token_stride + 8 * r) = pair;
      }
  };

  uint32_t of_s[8][4];
  pack(of_s, s);
  for (int chunk = 0; chunk < chunks; ++chunk) {
    const uint32_t keys = stages + stage * kStageBytes;
    ptx::mbarrier_wait(full + 8 * stage, parity);
    ptx::wgmma_hold(u);
    ptx::wgmma_hold(of_s);
    ptx::wgmma_fence();
    multiply_rows(u, of_s, keys);
    store(chunk - 1);
    ptx::wgmma_hold(o);
    ptx::wgmma_fence();
    multiply_rows(o, of_s, keys + kQueries);

    uint32_t values[4][4];  // of tokens 16 i ..: of the first column and the second, then those of the next eight tokens
    float2 factor[8];
#pragma unroll
    for (int i = 0; i < 4; ++i) ptx::ldmatrix_x4_transposed(values[i], keys + kValues + Rows::at(i * 16 + lane / 16 * 8 + lane % 8, warp * 2 + lane / 8 % 2));
    read_factors(factor, keys + kSeen);
    ptx::wgmma_wait<1>();
    ptx::wgmma_hold(u);
    uint32_t wanted[4][4];
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float2 value = ptx::unpack_f16(values[j / 2][j % 2 * 2 + r]);
        u[4 * j + 2 * r] = fmaf(-factor[j].x, u[4 * j + 2 * r], value.x);
        u[4 * j + 2 * r + 1] = fmaf(-factor[j].y, u[4 * j + 2 * r + 1], value.y);
      }
    pack(wanted, u);
    ptx::wgmma_hold(u);
    ptx::wgmma_hold(wanted);
    ptx::wgmma_fence();
    multiply_lower(u, wanted, keys + kSolved, 0);

    read_factors(factor, keys + kDecays);
    const float decay = ptx::load_shared(keys + kDecays + (kChunk - 1) * 4);
    ptx::wgmma_wait<1>();
    ptx::wgmma_hold(o);
    ptx::wgmma_hold(of_s);
#pragma unroll
    for (int i = 0; i < 32; ++i) o[i] *= i % 2 ? factor[i / 4].y : factor[i / 4].x;
#pragma unroll
    for (int i = 0; i < 64; ++i) s[i] *= decay;
    read_factors(factor, keys + kRests);
    ptx::wgmma_wait<0>();
    ptx::wgmma_hold(u);
    ptx::wgmma_hold(wanted);
    // u as it is, and as it counts at the chunk's end.
    uint32_t change[4][4], kept[4][4];
    pack(change, u);
#pragma unroll
    for (int i = 0; i < 32; ++i) u[i] *= i % 2 ? factor[i / 4].y : factor[i / 4].x;
    pack(kept, u);
    ptx::wgmma_hold(s);
    ptx::wgmma_hold(o);
    ptx::wgmma_hold(kept);
    ptx::wgmma_hold(change);
    ptx::wgmma_fence();
    const uint64_t by_dimension = ptx::wgmma_descriptor_transposed(keys, Rows::kPanel);
#pragma unroll
    for (int i = 0; i < kChunk / 16; ++i) ptx::wgmma_m64k16_f16_transposed(s, kept[i], by_dimension + i * 128);
    ptx::wgmma_commit();
    multiply_lower(o, change, keys + kWeights, 1);
    ptx::wgmma_wait<1>();
    ptx::wgmma_hold(s);
    ptx::wgmma_hold(kept);
    pack(of_s, s);
    ptx::wgmma_wait<0>();
    ptx::wgmma_hold(o);
    ptx::wgmma_hold(change);
#pragma unroll
    for (int i = 0; i < 16; ++i) results[i] = pack_bf16(o[2 * i], o[2 * i + 1]);
    __syncwarp();
    if (lane == 0) ptx::mbarrier_arrive(empty + 8 * stage);
    advance();
  }
  store(chunks - 1);

  float* after = reinterpret_cast<float*>(state_after(p)) + (head * D + lane % 4 * 2) * D + column;
#pragma unroll
  for (int i = 0; i < 64; ++i) after[(i / 4 * 8 + i % 2) * D + i / 2 % 2 * 8] = s[i];
}

}  // namespace

Status launch_delta_scan_sm90(const DeltaPlan& plan, Stream stream) {
  if (const Status error = allow_shared(delta_scan_sm90_kernel, kSharedBytes)) return error;
  const dim3 grid(D / kColumns, static_cast<unsigned>(plan.args.value_heads));
  return launch_dependent(delta_scan_sm90_kernel, grid, kThreads, kSharedBytes, stream, plan);
}

}  // namespace longview::kernels
