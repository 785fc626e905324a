// The tiles of all chunks (chunk_tile.cuh), a block for each chunk and value head, a warp for 16 of the 64 tokens. T is made in float32 by
// forward substitution, a thread a column, and rounded as a factor. No entry of T is larger than 1, since with |k| <= 1 and b <= 1 every
// step shrinks: neither substitution nor rounding loses more than the factors have.
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"
#include "kernels/ptx/exp2.cuh"
#include "kernels/ptx/mma.cuh"
#include "kernels/recurrent/chunk_tile.cuh"
#include "kernels/recurrent/delta_net.cuh"

namespace longview::kernels {
namespace {

constexpr int kLowerStride = 68, kSolvedStride = 72;  // floats of a row: threads that write A's columns, or read pairs of T, meet no bank twice

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

// Column threadIdx.x < 64 of T: rows of 16 at a time, from those before and from the block on the diagonal. `lower` has A's columns as
// rows. Of columns from 32 on the first 32 rows are zeros, which nobody reads.
__device__ inline void solve(float* solved, const float* lower) {
  const int column = threadIdx.x, first = column / 32 * 32;
#pragma unroll 1
  for (int base = first; base < kChunk; base += 16) {
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

template <int D>
__global__ void __launch_bounds__(kChunkThreads, 4) delta_chunks_kernel(const DeltaPlan p) {
  using Rows = ChunkRows<D>;
  extern __shared__ __align__(128) char shared_bytes[];
  __shared__ Gates gates;
  const uint32_t keys = ptx::shared_address(shared_bytes), queries = keys + Rows::kBytes;
  auto* lower = reinterpret_cast<float*>(shared_bytes);
  float* solved = lower + kChunk * kLowerStride;
  const DeltaNetArgs& a = p.args;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t chunk = blockIdx.x, head = blockIdx.y, key_head = key_head_of(p, head), first = chunk * kChunk;
  const int valid = static_cast<int>(min(static_cast<int64_t>(kChunk), a.tokens - first));
  const auto* x = static_cast<const __half*>(p.x) + first * p.channels;
  char* tile = p.tiles + (chunk * a.value_heads + head) * ChunkTile::kBytes;
  ptx::start_dependents();
  ptx::wait_for_previous();

  Rows::load(keys, x + (a.key_heads + key_head) * D, p.channels, valid);
  Rows::load(queries, x + key_head * D, p.channels, valid);
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
    if (j > warp) continue;
    float weight[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int half = i / 4, r = i / 2 % 2, row = row0 + 8 * r, column = j * 16 + half * 8 + lane % 4 * 2 + i % 2;
      const float decay = column <= row ? ptx::exp2(sums[r] - gates.sum[column]) : 0.0f;
      weight[i] = column <= row ? decay * of_queries[2 * j + half][i % 4] : 0.0f;
      lower[column * kLowerStride + row] = column < row ? gates.rate[row] * decay * of_keys[2 * j + half][i % 4] : 0.0f;
    }
    reinterpret_cast<uint4*>(tile + ChunkTile::kWeights + ChunkTile::lower(warp, j))[lane] = {ptx::pack_f16(weight[0], weight[1]), ptx::pack_f16(weight[2], weight[3]), ptx::pack_f16(weight[4], weight[5]), ptx::pack_f16(weight[6], weight[7])};
  }
  __syncthreads();

  if (warp < 2) {
    solve(solved, lower);
  } else {
    const int token = threadIdx.x - 64;
    const float sum = gates.sum[token], rate = gates.rate[token], decay = ptx::exp2(sum);
    reinterpret_cast<float4*>(tile + ChunkTile::kFactors)[token] = {rate, -rate * decay, decay, ptx::exp2(gates.sum[kChunk - 1] - sum)};
  }
  __syncthreads();
#pragma unroll 1
  for (int step = 0; step <= warp; ++step) {
    uint32_t t[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = *reinterpret_cast<const float2*>(solved + (row0 + i % 2 * 8) * kSolvedStride + step * 16 + lane % 4 * 2 + i / 2 * 8);
      t[i] = ptx::pack_f16(pair.x, pair.y);
    }
    reinterpret_cast<uint4*>(tile + ChunkTile::kSolved + ChunkTile::lower(warp, step))[lane] = {t[0], t[1], t[2], t[3]};
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
