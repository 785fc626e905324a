// The tiles of all chunks (chunk_tile.cuh), a block for each chunk and value head. A warp has 16 of the 64 tokens. Products take fp16
// and add in float32; T is made in float32 by forward substitution, a thread a column, and rounded as a factor. No entry of T is larger
// than 1, since with |k| <= 1 and b <= 1 every step shrinks: neither substitution nor rounding loses more than the factors have.
#include "kernels/common/launch.cuh"
#include "kernels/ptx/cp_async.cuh"
#include "kernels/ptx/dependent_launch.cuh"
#include "kernels/ptx/exp2.cuh"
#include "kernels/ptx/f16.cuh"
#include "kernels/ptx/mma.cuh"
#include "kernels/recurrent/chunk_tile.cuh"
#include "kernels/recurrent/delta_net.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = 128, kTokens = static_cast<int>(kDeltaChunkTokens);
constexpr int kLowerStride = 68, kSolvedStride = 72;  // floats of a row: threads that write A's columns, or read pairs of T, meet no bank twice

// [64, D] fp16 with 16 bytes behind each row, so that eight rows of one column lie in eight bank groups.
template <int D>
struct Rows {
  static constexpr int kStride = D * 2 + 16, kBytes = kTokens * kStride;
  __device__ static uint32_t at(int row, int chunk) { return row * kStride + chunk * 16; }
  // Starts copying; zeros behind the first `valid`.
  __device__ static void load(uint32_t to, const __half* from, int64_t stride, int valid) {
#pragma unroll
    for (int i = 0; i < kTokens * (D / 8) / kThreads; ++i) {
      const int item = static_cast<int>(threadIdx.x) + i * kThreads, row = item / (D / 8), chunk = item % (D / 8);
      ptx::cp_async_16(to + at(row, chunk), from + (row < valid ? row : 0) * stride + chunk * 8, row < valid);
    }
  }
};

template <int D>
constexpr int kSharedBytes = 2 * Rows<D>::kBytes + kTokens * (kLowerStride + kSolvedStride) * 4;

// Logarithms of the decays from the chunk's begin up to each token, and what columns of T are multiplied with.
struct Gates {
  float sum[kTokens], rate[kTokens], decayed_rate[kTokens];
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
    to.decayed_rate[2 * lane + i] = -of[i].y * ptx::exp2(sums[i]);
  }
}

__device__ inline uint32_t scaled(uint32_t pair, float low, float high) {
  const float2 x = ptx::unpack_f16(pair);
  return ptx::pack_f16(x.x * low, x.y * high);
}

// Column threadIdx.x < 64 of T: rows of 16 at a time, from those before and from the block on the diagonal. `lower` has A's columns as
// rows. Of columns from 32 on the first 32 rows are zeros, which nobody reads.
__device__ inline void solve(float* solved, const float* lower) {
  const int column = threadIdx.x, first = column / 32 * 32;
#pragma unroll 1
  for (int base = first; base < kTokens; base += 16) {
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

// The warp's 16 rows of T, each column times its factor, with the rows at `with`.
template <int D>
__device__ inline void multiply_solved(float (&sum)[D / 8][4], const float* solved, const float* factors, uint32_t with) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < D / 8; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) sum[i][j] = 0;
#pragma unroll 1
  for (int step = 0; step <= warp; ++step) {
    uint32_t a[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = warp * 16 + lane / 4 + i % 2 * 8, column = step * 16 + lane % 4 * 2 + i / 2 * 8;
      const float2 t = *reinterpret_cast<const float2*>(solved + row * kSolvedStride + column);
      a[i] = ptx::pack_f16(t.x * factors[column], t.y * factors[column + 1]);
    }
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      uint32_t b[4];
      ptx::ldmatrix_x4_transposed(b, with + Rows<D>::at(step * 16 + lane % 16, i * 2 + lane / 16));
      ptx::mma_f16(sum[2 * i], a, b[0], b[1]);
      ptx::mma_f16(sum[2 * i + 1], a, b[2], b[3]);
    }
  }
}

template <int D>
__global__ void __launch_bounds__(kThreads, 3) delta_chunks_kernel(const DeltaPlan p) {
  using Tile = ChunkTile<D>;
  extern __shared__ __align__(128) char shared_bytes[];
  __shared__ Gates gates;
  const uint32_t keys = ptx::shared_address(shared_bytes), others = keys + Rows<D>::kBytes;  // others: queries, then values
  auto* lower = reinterpret_cast<float*>(shared_bytes + 2 * Rows<D>::kBytes);
  float* solved = lower + kTokens * kLowerStride;
  const DeltaNetArgs& a = p.args;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t chunk = blockIdx.x, head = blockIdx.y, key_head = key_head_of(p, head), first = chunk * kTokens;
  const int valid = static_cast<int>(min(static_cast<int64_t>(kTokens), a.tokens - first));
  const auto* x = static_cast<const __half*>(p.x) + first * p.channels;
  char* tile = p.tiles + (chunk * a.value_heads + head) * Tile::kBytes;
  ptx::start_dependents();
  ptx::wait_for_previous();

  Rows<D>::load(keys, x + (a.key_heads + key_head) * D, p.channels, valid);
  Rows<D>::load(others, x + key_head * D, p.channels, valid);
  ptx::cp_async_commit();
  if (warp == 0) sum_gates(gates, p.gates + head * a.tokens + first, valid);
  ptx::cp_async_wait<0>();
  __syncthreads();

  // Products of the warp's keys and queries with the keys up to them, and the queries as a factor.
  const int row0 = warp * 16 + lane / 4;
  const float sums[2] = {gates.sum[row0], gates.sum[row0 + 8]};
  {
    const float decays[2] = {ptx::exp2(sums[0]), ptx::exp2(sums[1])};
    float of_keys[8][4] = {}, of_queries[8][4] = {};
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      uint32_t k[4], q[4];
      const uint32_t at = Rows<D>::at(warp * 16 + lane % 16, i * 2 + lane / 16);
      ptx::ldmatrix_x4(k, keys + at);
      ptx::ldmatrix_x4(q, others + at);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (j > warp) continue;
        uint32_t b[4];
        ptx::ldmatrix_x4(b, keys + Rows<D>::at(j * 16 + lane / 16 * 8 + lane % 8, i * 2 + lane / 8 % 2));
        ptx::mma_f16(of_keys[2 * j], k, b[0], b[1]);
        ptx::mma_f16(of_keys[2 * j + 1], k, b[2], b[3]);
        ptx::mma_f16(of_queries[2 * j], q, b[0], b[1]);
        ptx::mma_f16(of_queries[2 * j + 1], q, b[2], b[3]);
      }
      reinterpret_cast<uint4*>(tile + Tile::offset(1) + Tile::of_tokens(warp, i))[lane] = {
          scaled(q[0], decays[0], decays[0]), scaled(q[1], decays[1], decays[1]), scaled(q[2], decays[0], decays[0]), scaled(q[3], decays[1], decays[1])};
    }
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
      reinterpret_cast<uint4*>(tile + Tile::offset(2) + Tile::lower(warp, j))[lane] = {ptx::pack_f16(weight[0], weight[1]), ptx::pack_f16(weight[2], weight[3]), ptx::pack_f16(weight[4], weight[5]), ptx::pack_f16(weight[6], weight[7])};
    }
  }
  __syncthreads();

  Rows<D>::load(others, x + (2 * a.key_heads + head) * D, p.channels, valid);
  ptx::cp_async_commit();
  const float last = gates.sum[kTokens - 1];
  if (warp < 2) {
    solve(solved, lower);
  } else {
    // Keys as a factor, turned: the warp's 32 tokens are columns.
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      const int token = (warp - 2) * 2 + step, column = token * 16 + lane % 4 * 2;
      float decays[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) decays[i] = ptx::exp2(last - gates.sum[column + i % 2 + i / 2 * 8]);
#pragma unroll
      for (int i = 0; i < D / 16; ++i) {
        uint32_t k[4];
        ptx::ldmatrix_x4_transposed(k, keys + Rows<D>::at(token * 16 + lane / 16 * 8 + lane % 8, i * 2 + lane / 8 % 2));
        reinterpret_cast<uint4*>(tile + Tile::offset(3) + Tile::of_keys(i, token))[lane] = {
            scaled(k[0], decays[0], decays[1]), scaled(k[1], decays[0], decays[1]), scaled(k[2], decays[2], decays[3]), scaled(k[3], decays[2], decays[3])};
      }
    }
    if (threadIdx.x == 64) p.decays[chunk * a.value_heads + head] = ptx::exp2(last);
  }
  ptx::cp_async_wait<0>();
  __syncthreads();

  float sum[D / 8][4];
  multiply_solved<D>(sum, solved, gates.rate, others);
#pragma unroll
  for (int i = 0; i < D / 8; ++i)
    reinterpret_cast<uint2*>(tile + Tile::offset(4) + Tile::sums(i, warp / 2))[lane * 2 + warp % 2] = {pack_within(sum[i][0], sum[i][1]), pack_within(sum[i][2], sum[i][3])};
  multiply_solved<D>(sum, solved, gates.decayed_rate, keys);
#pragma unroll
  for (int i = 0; i < D / 16; ++i)
    reinterpret_cast<uint4*>(tile + Tile::of_tokens(warp, i))[lane] = {ptx::pack_f16(sum[2 * i][0], sum[2 * i][1]), ptx::pack_f16(sum[2 * i][2], sum[2 * i][3]),
                                                                      ptx::pack_f16(sum[2 * i + 1][0], sum[2 * i + 1][1]), ptx::pack_f16(sum[2 * i + 1][2], sum[2 * i + 1][3])};
}

template <int D>
Status launch(const DeltaPlan& p, Stream stream) {
  if (const Status error = allow_shared(delta_chunks_kernel<D>, kSharedBytes<D>)) return error;
  const dim3 grid(static_cast<unsigned>(p.chunks), static_cast<unsigned>(p.args.value_heads));
  return launch_dependent(delta_chunks_kernel<D>, grid, kThreads, kSharedBytes<D>, stream, p);
}

}  // namespace

Status launch_delta_chunks(const DeltaPlan& plan, Stream stream) {
  return plan.args.head_dim == 32 ? launch<32>(plan, stream) : plan.args.head_dim == 64 ? launch<64>(plan, stream) : launch<128>(plan, stream);
}

}  // namespace longview::kernels
