// From chunk to chunk: S and the results, out of the chunks' tiles (chunk_tile.cuh). A block has 32 columns of a value head's S, a warp
// eight of them, all rows, in float32 registers; columns do not depend on each other, so that warps share nothing but the factors, which
// come through shared memory: each has its place there, is asked for three steps before it is needed, and goes when the next one is
// begun. What a product gives becomes the second factor of the next by turning its 8 x 8 blocks (ptx::transpose).
#include "kernels/common/launch.cuh"
#include "kernels/ptx/cp_async.cuh"
#include "kernels/ptx/dependent_launch.cuh"
#include "kernels/ptx/f16.cuh"
#include "kernels/ptx/mma.cuh"
#include "kernels/recurrent/chunk_tile.cuh"
#include "kernels/recurrent/delta_net.cuh"

namespace longview::kernels {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * 32, kColumns = kWarps * 8;

// 16 rows of eight columns, as a product leaves them, as a second factor: fp16 pairs of rows.
__device__ inline void turn(uint32_t (&to)[2], const float (&from)[4]) {
  to[0] = ptx::transpose(pack_within(from[0], from[1]));
  to[1] = ptx::transpose(pack_within(from[2], from[3]));
}

template <int D>
__global__ void __launch_bounds__(kThreads) delta_scan_kernel(const DeltaPlan p) {
  using Tile = ChunkTile<D>;
  constexpr int kRowTiles = Tile::kTokens / 16, kKeyTiles = D / 16;
  extern __shared__ __align__(128) char shared_bytes[];
  const DeltaNetArgs& a = p.args;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t head = blockIdx.y;
  const int column_tile = static_cast<int>(blockIdx.x) * kWarps + warp, row = lane / 4, column = column_tile * 8 + lane % 4 * 2;
  ptx::start_dependents();
  ptx::wait_for_previous();

  const auto tile_of = [&](int64_t chunk) { return p.tiles + (chunk * a.value_heads + head) * Tile::kBytes; };
  // Asks for a factor; nothing behind the last chunk.
  const uint32_t shared = ptx::shared_address(shared_bytes);
  const auto ask = [&](int64_t chunk, int factor) {
    if (chunk < p.chunks) {
      const char* from = tile_of(chunk) + Tile::offset(factor);
      for (int at = static_cast<int>(threadIdx.x) * 16; at < Tile::bytes(factor); at += kThreads * 16) ptx::cp_async_16(shared + Tile::offset(factor) + at, from + at, true);
    }
    ptx::cp_async_commit();
  };
  const auto fragment = [&](uint32_t (&to)[4], int offset) {
    const uint4 four = reinterpret_cast<const uint4*>(shared_bytes + offset)[lane];
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
  };
  // Waits for a factor and asks for what takes the place of the one before it, which no warp needs any more.
  const auto begin = [&](int64_t chunk, int factor) {
    ptx::cp_async_wait<2>();
    __syncthreads();
    ask(factor == 0 ? chunk : chunk + 1, (factor + 3) % Tile::kFactors);
  };
  uint4 added[2];
  const auto read_added = [&](int64_t chunk) {
#pragma unroll
    for (int i = 0; i < 2; ++i) added[i] = reinterpret_cast<const uint4*>(tile_of(chunk) + Tile::offset(4) + Tile::sums(column_tile, i))[lane];
  };

  for (int factor = 0; factor < 3; ++factor) ask(0, factor);
  read_added(0);
  float s[kKeyTiles][4];
  const float* before = reinterpret_cast<const float*>(state_before(p)) + head * D * D + column;
#pragma unroll
  for (int i = 0; i < kKeyTiles; ++i)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float2 pair = *reinterpret_cast<const float2*>(before + (i * 16 + row + r * 8) * D);
      s[i][2 * r] = pair.x, s[i][2 * r + 1] = pair.y;
    }

  for (int64_t chunk = 0; chunk < p.chunks; ++chunk) {
    const float decay = p.decays[chunk * a.value_heads + head];
    uint32_t b[kKeyTiles][2], c[4];
#pragma unroll
    for (int i = 0; i < kKeyTiles; ++i) turn(b[i], s[i]);
    float u[kRowTiles][4], o[kRowTiles][4] = {};
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      const float2 low = ptx::unpack_f16(m % 2 ? added[m / 2].z : added[m / 2].x), high = ptx::unpack_f16(m % 2 ? added[m / 2].w : added[m / 2].y);
      u[m][0] = low.x, u[m][1] = low.y, u[m][2] = high.x, u[m][3] = high.y;
    }
    if (chunk + 1 < p.chunks) read_added(chunk + 1);

    begin(chunk, 0);
#pragma unroll
    for (int i = 0; i < kKeyTiles; ++i)
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        fragment(c, Tile::of_tokens(m, i));
        ptx::mma_f16(u[m], c, b[i][0], b[i][1]);
      }
    begin(chunk, 1);
#pragma unroll
    for (int i = 0; i < kKeyTiles; ++i)
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        fragment(c, Tile::offset(1) + Tile::of_tokens(m, i));
        ptx::mma_f16(o[m], c, b[i][0], b[i][1]);
      }
    uint32_t change[kRowTiles][2];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) turn(change[m], u[m]);
    begin(chunk, 2);
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i)
#pragma unroll
      for (int m = i; m < kRowTiles; ++m) {
        fragment(c, Tile::offset(2) + Tile::lower(m, i));
        ptx::mma_f16(o[m], c, change[i][0], change[i][1]);
      }
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int64_t token = chunk * Tile::kTokens + m * 16 + row + r * 8;
        if (token < a.tokens) *reinterpret_cast<uint32_t*>(static_cast<__nv_bfloat16*>(a.out) + (token * a.value_heads + head) * D + column) = pack_bf16(o[m][2 * r], o[m][2 * r + 1]);
      }
    begin(chunk, 3);
#pragma unroll
    for (int i = 0; i < kKeyTiles; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) s[i][j] *= decay;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int i = 0; i < kKeyTiles; ++i) {
        fragment(c, Tile::offset(3) + Tile::of_keys(i, m));
        ptx::mma_f16(s[i], c, change[m][0], change[m][1]);
      }
  }

  float* after = reinterpret_cast<float*>(state_after(p)) + head * D * D + column;
#pragma unroll
  for (int i = 0; i < kKeyTiles; ++i)
#pragma unroll
    for (int r = 0; r < 2; ++r) *reinterpret_cast<float2*>(after + (i * 16 + row + r * 8) * D) = {s[i][2 * r], s[i][2 * r + 1]};
}

template <int D>
Status launch(const DeltaPlan& p, Stream stream) {
  constexpr int kSharedBytes = ChunkTile<D>::offset(ChunkTile<D>::kFactors);
  if (const Status error = allow_shared(delta_scan_kernel<D>, kSharedBytes)) return error;
  const dim3 grid(D / kColumns, static_cast<unsigned>(p.args.value_heads));
  return launch_dependent(delta_scan_kernel<D>, grid, kThreads, kSharedBytes, stream, p);
}

}  // namespace

Status launch_delta_scan(const DeltaPlan& plan, Stream stream) {
  return plan.args.head_dim == 32 ? launch<32>(plan, stream) : plan.args.head_dim == 64 ? launch<64>(plan, stream) : launch<128>(plan, stream);
}

}  // namespace longview::kernels
