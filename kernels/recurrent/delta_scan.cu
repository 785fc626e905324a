// From chunk to chunk: S and the results, out of the chunks' rows and tiles (chunk_tile.cuh). A warp has 8 or 16 columns of a value head's
// S, all rows, in float32 registers; columns do not depend on each other, so that the four warps of a block share nothing but the first
// factors, which come through two stages of shared memory. What a product gives becomes the second factor of the next by turning its
// 8 x 8 blocks (ptx::transpose).
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"
#include "kernels/ptx/f16.cuh"
#include "kernels/ptx/mma.cuh"
#include "kernels/recurrent/chunk_tile.cuh"
#include "kernels/recurrent/delta_net.cuh"

namespace longview::kernels {
namespace {

constexpr int kWarps = kChunkThreads / 32, kRowTiles = kChunk / 16;

template <int D>
constexpr int kStageBytes = 2 * ChunkRows<D>::kBytes + ChunkTile::kBytes;

// 16 rows of eight columns, as a product leaves them, as a second factor: pairs of rows. The rows' upper and lower eight times a factor each.
__device__ inline void turn(uint32_t (&to)[2], const float (&from)[4], float upper = 1, float lower = 1) {
  to[0] = ptx::transpose(ptx::pack_f16_within(from[0] * upper, from[1] * upper));
  to[1] = ptx::transpose(ptx::pack_f16_within(from[2] * lower, from[3] * lower));
}

// kEights: of columns that a warp has.
template <int D, int kEights>
__global__ void __launch_bounds__(kChunkThreads, 1) delta_scan_kernel(const DeltaPlan p) {
  using Rows = ChunkRows<D>;
  constexpr int kKeyTiles = D / 16;
  extern __shared__ __align__(128) char shared_bytes[];
  const uint32_t shared = ptx::shared_address(shared_bytes);
  const DeltaNetArgs& a = p.args;
  const int lane = threadIdx.x % 32, row = lane / 4, column = (static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32) * kEights * 8 + lane % 4 * 2;
  const int64_t head = blockIdx.y, key_head = key_head_of(p, head);
  ptx::start_dependents();
  ptx::wait_for_previous();

  const auto load = [&](int64_t chunk) {
    const uint32_t to = shared + static_cast<uint32_t>(chunk % 2) * kStageBytes<D>;
    load_chunk<Rows::kBytes>(to, Rows::of(p, chunk, a.key_heads + key_head));
    load_chunk<Rows::kBytes>(to + Rows::kBytes, Rows::of(p, chunk, key_head));
    load_chunk<ChunkTile::kBytes>(to + 2 * Rows::kBytes, ChunkTile::of(p, chunk, head));
  };
  // Values as products leave theirs.
  uint32_t values[kRowTiles][kEights][2];
  const auto read_values = [&](int64_t chunk) {
    const char* from = Rows::of(p, chunk, 2 * a.key_heads + head) + lane % 4 * 4;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int e = 0; e < kEights; ++e)
#pragma unroll
        for (int r = 0; r < 2; ++r) values[m][e][r] = *reinterpret_cast<const uint32_t*>(from + Rows::at(m * 16 + row + r * 8, column / 8 + e));
  };

  load(0);
  ptx::cp_async_commit();
  read_values(0);
  float s[kKeyTiles][kEights][4];
  const float* before = reinterpret_cast<const float*>(state_before(p)) + head * D * D + column;
#pragma unroll
  for (int i = 0; i < kKeyTiles; ++i)
#pragma unroll
    for (int e = 0; e < kEights; ++e)
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float2 pair = *reinterpret_cast<const float2*>(before + (i * 16 + row + r * 8) * D + e * 8);
        s[i][e][2 * r] = pair.x, s[i][e][2 * r + 1] = pair.y;
      }

  for (int64_t chunk = 0; chunk < p.chunks; ++chunk) {
    ptx::cp_async_wait<0>();
    __syncthreads();  // the chunk is there, and no warp needs the one before
    if (chunk + 1 < p.chunks) load(chunk + 1);
    ptx::cp_async_commit();
    const int stage = static_cast<int>(chunk % 2) * kStageBytes<D>;
    const uint32_t keys = shared + stage, queries = keys + Rows::kBytes;
    const char* tile = shared_bytes + stage + 2 * Rows::kBytes;
    const auto* decays = reinterpret_cast<const float*>(tile + ChunkTile::kDecays);
    const auto* seen = reinterpret_cast<const float*>(tile + ChunkTile::kSeen);
    const auto* rests = reinterpret_cast<const float*>(tile + ChunkTile::kRests);
    const auto fragment = [&](uint32_t (&to)[4], int matrix, int m, int i) { ptx::ldmatrix_x4(to, queries + Rows::kBytes + matrix + ChunkTile::at(m * 16 + lane % 16, i * 2 + lane / 16)); };
    uint32_t c[4];

    // k S and q S.
    float u[kRowTiles][kEights][4] = {}, o[kRowTiles][kEights][4] = {};
#pragma unroll
    for (int i = 0; i < kKeyTiles; ++i) {
      uint32_t b[kEights][2];
#pragma unroll
      for (int e = 0; e < kEights; ++e) turn(b[e], s[i][e]);
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        const uint32_t at = Rows::at(m * 16 + lane % 16, i * 2 + lane / 16);
        ptx::ldmatrix_x4(c, keys + at);
#pragma unroll
        for (int e = 0; e < kEights; ++e) ptx::mma_f16(u[m][e], c, b[e][0], b[e][1]);
        ptx::ldmatrix_x4(c, queries + at);
#pragma unroll
        for (int e = 0; e < kEights; ++e) ptx::mma_f16(o[m][e], c, b[e][0], b[e][1]);
      }
    }
    // What T is multiplied with; then u, as a second factor: as it is, and as it counts at the chunk's end.
    uint32_t wanted[kRowTiles][kEights][2], change[kRowTiles][kEights][2];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      const float upper = seen[m * 16 + row], lower = seen[m * 16 + row + 8], upper_decay = decays[m * 16 + row], lower_decay = decays[m * 16 + row + 8];
#pragma unroll
      for (int e = 0; e < kEights; ++e) {
        const float2 high = ptx::unpack_f16(values[m][e][0]), low = ptx::unpack_f16(values[m][e][1]);
        u[m][e][0] = fmaf(-upper, u[m][e][0], high.x), u[m][e][1] = fmaf(-upper, u[m][e][1], high.y);
        u[m][e][2] = fmaf(-lower, u[m][e][2], low.x), u[m][e][3] = fmaf(-lower, u[m][e][3], low.y);
        turn(wanted[m][e], u[m][e]);
        o[m][e][0] *= upper_decay, o[m][e][1] *= upper_decay, o[m][e][2] *= lower_decay, o[m][e][3] *= lower_decay;
#pragma unroll
        for (int j = 0; j < 4; ++j) u[m][e][j] = 0;
      }
    }
    if (chunk + 1 < p.chunks) read_values(chunk + 1);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int i = 0; i <= m; ++i) {
        fragment(c, ChunkTile::kSolved, m, i);
#pragma unroll
        for (int e = 0; e < kEights; ++e) ptx::mma_f16(u[m][e], c, wanted[i][e][0], wanted[i][e][1]);
      }
#pragma unroll
      for (int e = 0; e < kEights; ++e) turn(change[m][e], u[m][e]);
    }
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int i = 0; i <= m; ++i) {
        fragment(c, ChunkTile::kWeights, m, i);
#pragma unroll
        for (int e = 0; e < kEights; ++e) ptx::mma_f16(o[m][e], c, change[i][e][0], change[i][e][1]);
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int64_t token = chunk * kChunk + m * 16 + row + r * 8;
        auto* to = reinterpret_cast<uint32_t*>(static_cast<__nv_bfloat16*>(a.out) + (token * a.value_heads + head) * D + column);
#pragma unroll
        for (int e = 0; e < kEights; ++e)
          if (token < a.tokens) to[e * 4] = pack_bf16(o[m][e][2 * r], o[m][e][2 * r + 1]);
      }
    }
    const float decay = decays[kChunk - 1];
#pragma unroll
    for (int i = 0; i < kKeyTiles; ++i)
#pragma unroll
      for (int e = 0; e < kEights; ++e)
#pragma unroll
        for (int j = 0; j < 4; ++j) s[i][e][j] *= decay;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      const float upper = rests[m * 16 + row], lower = rests[m * 16 + row + 8];
      uint32_t b[kEights][2];
#pragma unroll
      for (int e = 0; e < kEights; ++e) turn(b[e], u[m][e], upper, lower);
#pragma unroll
      for (int i = 0; i < kKeyTiles; ++i) {
        ptx::ldmatrix_x4_transposed(c, keys + Rows::at(m * 16 + lane / 16 * 8 + lane % 8, i * 2 + lane / 8 % 2));
#pragma unroll
        for (int e = 0; e < kEights; ++e) ptx::mma_f16(s[i][e], c, b[e][0], b[e][1]);
      }
    }
  }

  float* after = reinterpret_cast<float*>(state_after(p)) + head * D * D + column;
#pragma unroll
  for (int i = 0; i < kKeyTiles; ++i)
#pragma unroll
    for (int e = 0; e < kEights; ++e)
#pragma unroll
      for (int r = 0; r < 2; ++r) *reinterpret_cast<float2*>(after + (i * 16 + row + r * 8) * D + e * 8) = {s[i][e][2 * r], s[i][e][2 * r + 1]};
}

template <int D, int kEights>
Status launch(const DeltaPlan& p, Stream stream) {
  constexpr int kSharedBytes = 2 * kStageBytes<D>;
  if (const Status error = allow_shared(delta_scan_kernel<D, kEights>, kSharedBytes)) return error;
  const dim3 grid(D / (kWarps * kEights * 8), static_cast<unsigned>(p.args.value_heads));
  return launch_dependent(delta_scan_kernel<D, kEights>, grid, kChunkThreads, kSharedBytes, stream, p);
}

// Wide blocks read each factor half as often; narrow ones are more, and where the device has room for all of them, each is done sooner.
template <int D>
Status launch_width(const DeltaPlan& p, Stream stream) {
  return D / (kWarps * 8) * p.args.value_heads > device_attribute(cudaDevAttrMultiProcessorCount) ? launch<D, 2>(p, stream) : launch<D, 1>(p, stream);
}

}  // namespace

Status launch_delta_scan(const DeltaPlan& plan, Stream stream) {
  if (plan.args.head_dim == 128 && on_sm90(plan.args.architecture)) return launch_delta_scan_sm90(plan, stream);
  return plan.args.head_dim == 32 ? launch<32, 1>(plan, stream) : plan.args.head_dim == 64 ? launch_width<64>(plan, stream) : launch_width<128>(plan, stream);
}

}  // namespace longview::kernels
