// The tiles of all chunks (chunk_tile.cuh), a block for each chunk and value head, a warp for 16 of the 64 tokens. T is made in float32, its
// halves on the diagonal by forward substitution, a thread a column, the rest by two products, and rounded as a factor. No entry of T is
// larger than 1, since with |k| <= 1 and b <= 1 every step shrinks: neither substitution nor rounding loses more than the factors have.
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"
#include "kernels/ptx/exp2.cuh"
#include "kernels/ptx/f16.cuh"
#include "kernels/ptx/mma.cuh"
#include "kernels/recurrent/chunk_tile.cuh"
#include "kernels/recurrent/delta_net.cuh"

namespace longview::kernels {
namespace {

constexpr int kHalf = ChunkTile::kHalf;
constexpr int kLowerStride = 68, kSolvedStride = 68;  // floats of a row: threads that write A's columns, or read eight of a row of T, meet no bank twice

// Keys and queries, and in their place A and T.
template <int D>
constexpr int kSharedBytes = std::max(2 * ChunkRows<D>::kBytes, kChunk * (kLowerStride + kSolvedStride) * 4);

// Logarithms of the decays from the chunk's begin up to each token, and b.
struct Gates {
  float sum[kChunk], rate[kChunk];
};

// By the first warp, a lane two tokens. Tokens behind the last one change nothing.
__device__ inline void sum_gates(Gates& to, const float2* gates, int valid) {
  const int lane = threadIdx.x % 32;
  float2 of[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) of[i] = 2 * lane + i < valid ? gates[2 * lane + i] : float2{0, 0};
  float sum = of[0].x + of[1].x;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const float other = __shfl_up_sync(0xffffffffu, sum, step);
    if (lane >= step) sum += other;
  }
  float before = __shfl_up_sync(0xffffffffu, sum, 1);
  if (lane == 0) before = 0;
  const float sums[2] = {before + of[0].x, sum};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    to.sum[2 * lane + i] = sums[i];
    to.rate[2 * lane + i] = of[i].y;
  }
}

// Column threadIdx.x < 64 of one of T's two halves on the diagonal, [32, 32] each: rows of 16 at a time, from those before and from the block
// on the diagonal. `lower` has A's columns as rows.
__device__ inline void solve_halves(float* solved, const float* lower) {
  const int column = threadIdx.x, first = column / kHalf * kHalf;
#pragma unroll 1
  for (int base = first; base < first + kHalf; base += 16) {
    float t[16], a[16];
    const auto read = [&](int row) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float4 four = *reinterpret_cast<const float4*>(lower + row * kLowerStride + base + 4 * i);
        a[4 * i] = four.x, a[4 * i + 1] = four.y, a[4 * i + 2] = four.z, a[4 * i + 3] = four.w;
      }
    };
#pragma unroll
    for (int r = 0; r < 16; ++r) t[r] = base + r == column ? 1.0f : 0.0f;
#pragma unroll 4
    for (int row = first; row < base; ++row) {
      const float known = solved[row * kSolvedStride + column];
      read(row);
#pragma unroll
      for (int r = 0; r < 16; ++r) t[r] = fmaf(-a[r], known, t[r]);
    }
#pragma unroll
    for (int row = 0; row < 15; ++row) {
      read(base + row);
#pragma unroll
      for (int r = row + 1; r < 16; ++r) t[r] = fmaf(-a[r], t[row], t[r]);
    }
#pragma unroll
    for (int r = 0; r < 16; ++r) solved[(base + r) * kSolvedStride + column] = t[r];
  }
}

// What lies below them: - lower half of T (A upper half of T), A from the rows below. A warp has eight rows, a lane a column. The product in
// the middle takes the place behind the diagonal.
__device__ inline void join_halves(float* solved, const float* lower) {
  constexpr int kRows = kHalf / 4;
  const int row = threadIdx.x / 32 * kRows, column = threadIdx.x % 32;
  float middle[kRows] = {}, t[kRows] = {};
#pragma unroll 4
  for (int k = 0; k < kHalf; ++k) {
    const float upper = solved[k * kSolvedStride + column];
    const auto* a = reinterpret_cast<const float4*>(lower + k * kLowerStride + kHalf + row);
#pragma unroll
    for (int i = 0; i < kRows / 4; ++i) {
      const float4 four = a[i];
      middle[4 * i] = fmaf(four.x, upper, middle[4 * i]), middle[4 * i + 1] = fmaf(four.y, upper, middle[4 * i + 1]);
      middle[4 * i + 2] = fmaf(four.z, upper, middle[4 * i + 2]), middle[4 * i + 3] = fmaf(four.w, upper, middle[4 * i + 3]);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) solved[(row + r) * kSolvedStride + kHalf + column] = middle[r];
  __syncthreads();
#pragma unroll 2
  for (int k = 0; k < row + kRows; k += 4) {  // behind it T is zeros
    float x[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] = solved[(k + i) * kSolvedStride + kHalf + column];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float4 four = *reinterpret_cast<const float4*>(solved + (kHalf + row + r) * kSolvedStride + kHalf + k);
      t[r] = fmaf(-four.x, x[0], fmaf(-four.y, x[1], fmaf(-four.z, x[2], fmaf(-four.w, x[3], t[r]))));
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) solved[(kHalf + row + r) * kSolvedStride + column] = t[r];
}

template <int D>
__global__ void __launch_bounds__(kChunkThreads, 5) delta_chunks_kernel(const DeltaPlan p) {
  using Rows = ChunkRows<D>;
  extern __shared__ __align__(128) char shared_bytes[];
  __shared__ Gates gates;
  __shared__ __align__(16) char weights[ChunkTile::kMatrix];  // P, as it lies in the tile
  const uint32_t keys = ptx::shared_address(shared_bytes), queries = keys + Rows::kBytes;
  auto* lower = reinterpret_cast<float*>(shared_bytes);
  float* solved = lower + kChunk * kLowerStride;
  const DeltaNetArgs& a = p.args;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t chunk = blockIdx.x, head = blockIdx.y, key_head = key_head_of(p, head), first = chunk * kChunk;
  const int valid = static_cast<int>(min(static_cast<int64_t>(kChunk), a.tokens - first));
  char* tile = ChunkTile::of(p, chunk, head);
  ptx::start_dependents();
  ptx::wait_for_previous();

  load_chunk<Rows::kBytes>(keys, Rows::of(p, chunk, a.key_heads + key_head));
  load_chunk<Rows::kBytes>(queries, Rows::of(p, chunk, key_head));
  ptx::cp_async_commit();
  if (warp == 0) sum_gates(gates, p.gates + head * a.tokens + first, valid);
  ptx::cp_async_wait<0>();
  __syncthreads();

  // Of the warp's tokens with those up to them.
  float of_keys[8][4] = {}, of_queries[8][4] = {};
#pragma unroll
  for (int i = 0; i < D / 16; ++i) {
    uint32_t k[4], q[4];
    const uint32_t at = Rows::at(warp * 16 + lane % 16, i * 2 + lane / 16);
    ptx::ldmatrix_x4(k, keys + at);
    ptx::ldmatrix_x4(q, queries + at);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (j > warp) continue;
      uint32_t b[4];
      ptx::ldmatrix_x4(b, keys + Rows::at(j * 16 + lane / 16 * 8 + lane % 8, i * 2 + lane / 8 % 2));
      ptx::mma_f16(of_keys[2 * j], k, b[0], b[1]);
      ptx::mma_f16(of_keys[2 * j + 1], k, b[2], b[3]);
      ptx::mma_f16(of_queries[2 * j], q, b[0], b[1]);
      ptx::mma_f16(of_queries[2 * j + 1], q, b[2], b[3]);
    }
  }
  __syncthreads();

  const int row0 = warp * 16 + lane / 4;
  const float sums[2] = {gates.sum[row0], gates.sum[row0 + 8]};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (j > (warp | 1)) continue;  // neither A nor P has anything there
    float weight[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int half = i / 4, r = i / 2 % 2, row = row0 + 8 * r, column = j * 16 + half * 8 + lane % 4 * 2 + i % 2;
      const float decay = column <= row ? ptx::exp2(sums[r] - gates.sum[column]) : 0.0f;
      weight[i] = column <= row ? decay * of_queries[2 * j + half][i % 4] : 0.0f;
      if (j <= warp) lower[column * kLowerStride + row] = column < row ? gates.rate[row] * decay * of_keys[2 * j + half][i % 4] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < 8; i += 2) *reinterpret_cast<uint32_t*>(weights + ChunkTile::at(row0 + i / 2 % 2 * 8, 2 * j + i / 4) + lane % 4 * 4) = ptx::pack_f16(weight[i], weight[i + 1]);
  }
  __syncthreads();

  if (warp < 2) {
    solve_halves(solved, lower);
  } else {
    const int token = threadIdx.x - 64;
    const float sum = gates.sum[token], decay = ptx::exp2(sum);
    reinterpret_cast<float*>(tile + ChunkTile::kDecays)[token] = decay;
    reinterpret_cast<float*>(tile + ChunkTile::kSeen)[token] = gates.rate[token] * decay;
    reinterpret_cast<float*>(tile + ChunkTile::kRests)[token] = ptx::exp2(gates.sum[kChunk - 1] - sum);
  }
  __syncthreads();
  join_halves(solved, lower);
  __syncthreads();
  // 16 bytes of each matrix at a time.
#pragma unroll
  for (int i = 0; i < ChunkTile::kMatrix / 16 / kChunkThreads; ++i) {
    const int item = static_cast<int>(threadIdx.x) + i * kChunkThreads, in_half = item % (kChunk * 4);
    const int row = item < kChunk * 4 ? item / 4 : kChunk / 2 + in_half / 4, column = ((item < kChunk * 4 ? 0 : 4) + (item % 4 ^ row / 2 % 4)) * 8;
    const auto* from = reinterpret_cast<const float4*>(solved + row * kSolvedStride + column);
    const float4 left = from[0], right = from[1];
    reinterpret_cast<uint4*>(tile + ChunkTile::kSolved)[item] = {ptx::pack_f16(left.x, left.y), ptx::pack_f16(left.z, left.w), ptx::pack_f16(right.x, right.y), ptx::pack_f16(right.z, right.w)};
    reinterpret_cast<uint4*>(tile + ChunkTile::kWeights)[item] = reinterpret_cast<const uint4*>(weights)[item];
  }
}

template <int D>
Status launch(const DeltaPlan& p, Stream stream) {
  if (const Status error = allow_shared(delta_chunks_kernel<D>, kSharedBytes<D>)) return error;
  const dim3 grid(static_cast<unsigned>(p.chunks), static_cast<unsigned>(p.args.value_heads));
  return launch_dependent(delta_chunks_kernel<D>, grid, kChunkThreads, kSharedBytes<D>, stream, p);
}

}  // namespace

Status launch_delta_chunks(const DeltaPlan& plan, Stream stream) {
  return plan.args.head_dim == 32 ? launch<32>(plan, stream) : plan.args.head_dim == 64 ? launch<64>(plan, stream) : launch<128>(plan, stream);
}

}  // namespace longview::kernels
