// Attention of few queries (decode): 16 rows or fewer of a KV head, bound by reading K and V once.
//
// A head's keys are split over as many blocks as the device holds (parts). A block walks tiles of them; each of its four warps
// takes its own keys of every tile, through two stages of cp.async that no other warp waits for, against all rows. The results
// of the warps are joined in shared memory, those of the parts by the block that ends last: it finds that out by a counter,
// which is 0 again behind it, so that recorded work can be repeated.
#include "kernels/attention/attention.cuh"
#include "kernels/attention/rows_sm80.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * 32, kRows = 16, kStages = 2;

// What a warp takes of a tile: as many keys and values as 8 KiB hold. A tile lies within a page.
template <int D>
constexpr int kWarpKeys = 2048 / D;
template <int D>
constexpr int kStageBytes = 2 * kWarpKeys<D> * D * 2;
constexpr int kRingBytes = kWarps * kStages * kStageBytes<128>;
static_assert(kStageBytes<64> == kStageBytes<128> && kPageTokens % (kWarps * kWarpKeys<64>) == 0);
static_assert(kDecodeSharedBytes == kRingBytes);

// Starts copying a warp's keys of a page, and the values behind them: tokens first (a multiple of 8) .. first + kWarpKeys - 1,
// zeros for those behind the first `valid`. `keys` is the head's K block of the page, in its layout.
template <int D>
__device__ inline void load_warp_keys(uint32_t to, const __nv_bfloat16* keys, int first, int valid) {
  constexpr int kCount = kWarpKeys<D>, kChunks = D / 8;
  const __nv_bfloat16* begin = keys + first * 64;
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < kCount * kChunks / 32; ++i) {
    const int row = (lane + 32 * i) / kChunks, chunk = (lane + 32 * i) % kChunks;
    const auto offset = static_cast<int>(page_offset(row, chunk * 8));
    ptx::cp_async_16(to + swizzled<D>(row, chunk), begin + offset, row < valid);
    ptx::cp_async_16(to + kCount * D * 2 + swizzled<D>(row, chunk), begin + kPageTokens * D + offset, row < valid);
  }
}

__device__ inline float warp_max(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
  return value;
}
__device__ inline void add_scaled(float4& sum, float factor, float4 x) {
  sum.x = fmaf(factor, x.x, sum.x), sum.y = fmaf(factor, x.y, sum.y), sum.z = fmaf(factor, x.z, sum.z), sum.w = fmaf(factor, x.w, sum.w);
}

// Four dimensions of a row's result.
template <int D>
__device__ inline void store(const AttentionPlan& p, int64_t kv_head, int row, int column, float4 x, float factor) {
  const int64_t at = row / p.group * p.args.heads + kv_head * p.group + row % p.group;
  *reinterpret_cast<uint2*>(static_cast<__nv_bfloat16*>(p.args.out) + at * D + column * 4) = {pack_bf16(x.x * factor, x.y * factor), pack_bf16(x.z * factor, x.w * factor)};
}

// Results of the parts, which lie in memory, to the head's rows. D / 4 threads take a row's dimensions; where rows are fewer than
// such groups of threads, several groups share a row's parts.
template <int D>
__device__ inline void join_parts(const AttentionPlan& p, int64_t kv_head, char* shared) {
  constexpr int kColumns = D / 4, kGroups = kThreads / kColumns;
  const int rows = static_cast<int>(p.rows), parts = static_cast<int>(p.parts), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  auto* factors = reinterpret_cast<float*>(shared);                       // [rows, parts]
  auto* results = reinterpret_cast<float4*>(factors + kRows * kMostDecodeParts);  // [rows, share, D / 4]
  __shared__ float inverse[kRows];
  const int64_t stride = p.args.kv.kv_heads * p.rows, base = kv_head * p.rows;

  for (int row = warp; row < rows; row += kWarps) {
    float maximum = -INFINITY, sum = 0;  // of this lane's parts, then of all
    for (int part = lane; part < parts; part += 32) {
      const float own = __ldcg(p.maximum + part * stride + base + row), own_sum = __ldcg(p.sum + part * stride + base + row);
      factors[row * parts + part] = own;
      const float both = fmaxf(maximum, own);
      if (both == -INFINITY) continue;
      sum = fmaf(sum, ptx::exp2(maximum - both), own_sum * ptx::exp2(own - both));
      maximum = both;
    }
    const float highest = warp_max(maximum);
    sum = warp_sum(sum * ptx::exp2(maximum - highest));
    for (int part = lane; part < parts; part += 32) factors[row * parts + part] = ptx::exp2(factors[row * parts + part] - highest);  // 0 for a part of which the row sees nothing
    if (lane == 0) inverse[row] = 1.0f / sum;
  }
  __syncthreads();

  const int share = max(1, kGroups / rows), group = threadIdx.x / kColumns, column = threadIdx.x % kColumns;
  for (int row = group / share; row < rows; row += kGroups / share) {
    const auto* output = reinterpret_cast<const float4*>(p.output) + (base + row) * kColumns + column;
    float4 value{};
#pragma unroll 16
    for (int part = group % share; part < parts; part += share) add_scaled(value, factors[row * parts + part], __ldcg(output + part * stride * kColumns));
    results[(row * share + group % share) * kColumns + column] = value;
  }
  __syncthreads();
  for (int item = threadIdx.x; item < rows * kColumns; item += kThreads) {
    const int row = item / kColumns;
    float4 value = results[row * share * kColumns + item % kColumns];
    for (int i = 1; i < share; ++i) add_scaled(value, 1.0f, results[(row * share + i) * kColumns + item % kColumns]);
    store<D>(p, kv_head, row, item % kColumns, value, inverse[row]);
  }
}

// Of registers a third of a multiprocessor's: what two blocks leave is the next kernel's.
template <int D>
__global__ void __launch_bounds__(kThreads, 3) decode_attention_kernel(const AttentionPlan p) {
  constexpr int kTile = kWarps * kWarpKeys<D>, kColumns = D / 4;
  extern __shared__ __align__(128) char shared[];
  const AttentionArgs& a = p.args;
  const int64_t first_position = a.position ? *a.position : a.first_position;
  const int64_t part = blockIdx.x, kv_head = blockIdx.y;
  const int group = static_cast<int>(p.group), rows_count = static_cast<int>(p.rows), warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  const int64_t visible = first_position + a.tokens, tiles = ceil_div(visible, kTile);
  const int64_t begin = tiles * part / p.parts, end = tiles * (part + 1) / p.parts;
  const int64_t head_offset = (a.kv.layer * a.kv.kv_heads + kv_head) * 2 * kPageTokens * D;
  const uint32_t ring = ptx::shared_address(shared) + warp * kStages * kStageBytes<D>;
  const auto load = [&](int64_t tile) {
    if (tile < end) {
      const int64_t token = tile * kTile + warp * kWarpKeys<D>;
      const auto* keys = static_cast<const __nv_bfloat16*>(a.kv.pages[token / kPageTokens]) + head_offset;
      const int valid = static_cast<int>(max(int64_t{0}, min(static_cast<int64_t>(kWarpKeys<D>), visible - token)));
      load_warp_keys<D>(ring + static_cast<uint32_t>((tile - begin) % kStages) * kStageBytes<D>, keys, static_cast<int>(token % kPageTokens), valid);
    }
    ptx::cp_async_commit();
  };

  // Recorded work reads keys that lie there already (api/attention.h): they need not wait for the kernel that writes the last one.
  const bool early = a.position && min(begin + kStages, end) * kTile <= first_position;
  if (early)
    for (int i = 0; i < kStages; ++i) load(begin + i);
  ptx::wait_for_previous();
  ptx::start_dependents();  // not before: the next kernel's blocks then find no others but these, and go one to each multiprocessor
  if (!early)
    for (int i = 0; i < kStages; ++i) load(begin + i);

  // This thread's two rows, their positions and running state.
  const int row[2] = {lane / 4, lane / 4 + 8};
  const int64_t position[2] = {first_position + row[0] / group, first_position + row[1] / group};
  RowsSm80<D, kWarpKeys<D>> rows;
#pragma unroll
  for (int i = 0; i < D / 16; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int at = row[j % 2];
      const auto* q = static_cast<const __nv_bfloat16*>(a.q) + (at / group * a.heads + kv_head * group + at % group) * D + i * 16 + j / 2 * 8 + lane % 4 * 2;
      rows.query[i][j] = at < rows_count ? *reinterpret_cast<const uint32_t*>(q) : 0u;
    }

  for (int64_t tile = begin; tile < end; ++tile) {
    ptx::cp_async_wait<kStages - 1>();
    __syncwarp();
    const uint32_t keys = ring + static_cast<uint32_t>((tile - begin) % kStages) * kStageBytes<D>;
    rows.multiply_keys(keys);
    if ((tile + 1) * kTile > first_position + 1) {  // the diagonal crosses this tile
      const int64_t token = tile * kTile + warp * kWarpKeys<D>;
      hide_behind(rows.score, static_cast<int>(position[0] - token), static_cast<int>(position[1] - token));
    }
    rows.soften(p.scale);
    rows.multiply_values(keys + kWarpKeys<D> * D * 2);
    __syncwarp();
    load(tile + kStages);
  }
  ptx::cp_async_wait<0>();
  rows.join();
  __syncthreads();

  // The four warps' results to the block's.
  auto* results = reinterpret_cast<float*>(shared);  // [warps, rows, D]
  __shared__ float maxima[kWarps][kRows], sums[kWarps][kRows];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (row[r] >= rows_count) continue;
    if (lane % 4 == 0) {
      maxima[warp][row[r]] = rows.maximum[r] * p.scale;
      sums[warp][row[r]] = rows.sum[r];
    }
#pragma unroll
    for (int j = 0; j < D / 8; ++j) *reinterpret_cast<float2*>(results + (warp * kRows + row[r]) * D + j * 8 + lane % 4 * 2) = {rows.out[j][2 * r], rows.out[j][2 * r + 1]};
  }
  __syncthreads();
  for (int item = threadIdx.x; item < rows_count * kColumns; item += kThreads) {
    const int at = item / kColumns, column = item % kColumns;
    float maximum = maxima[0][at], sum = 0;
#pragma unroll
    for (int i = 1; i < kWarps; ++i) maximum = fmaxf(maximum, maxima[i][at]);
    const float base = maximum == -INFINITY ? 0.0f : maximum;  // a row that sees nothing of this part
    float4 value{};
#pragma unroll
    for (int i = 0; i < kWarps; ++i) {
      const float factor = ptx::exp2(maxima[i][at] - base);
      sum = fmaf(factor, sums[i][at], sum);
      add_scaled(value, factor, *reinterpret_cast<const float4*>(results + (i * kRows + at) * D + column * 4));
    }
    if (p.parts == 1) {
      store<D>(p, kv_head, at, column, value, 1.0f / sum);
      continue;
    }
    const int64_t to = (part * a.kv.kv_heads + kv_head) * p.rows + at;
    if (column == 0) {
      p.maximum[to] = maximum;
      p.sum[to] = sum;
    }
    reinterpret_cast<float4*>(p.output)[to * kColumns + column] = value;
  }
  if (p.parts == 1) return;

  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicInc(p.counters + kv_head, static_cast<unsigned>(p.parts) - 1) == p.parts - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  join_parts<D>(p, kv_head, shared);
}

template <int D>
Status launch(const AttentionPlan& p, Stream stream) {
  if (const auto error = cudaFuncSetAttribute(decode_attention_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, kRingBytes)) return static_cast<Status>(error);
  return launch_dependent(decode_attention_kernel<D>, dim3(static_cast<unsigned>(p.parts), static_cast<unsigned>(p.args.kv.kv_heads)), kThreads, kRingBytes, stream, p);
}

}  // namespace

Status launch_decode_attention(const AttentionPlan& plan, Stream stream) { return plan.args.kv.head_dim == 64 ? launch<64>(plan, stream) : launch<128>(plan, stream); }

}  // namespace longview::kernels
