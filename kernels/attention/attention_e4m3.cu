// Attention of few queries (decode) over e4m3 pages, read as they are.
//
// A warp takes 16 rows, which are (token, head) pairs of one KV head, and a part of the keys, 32 at a time, through stages of cp.async.
// Codes become fp16 operands of the tensor cores in registers. A product's sums do not ask for an order of its dimensions: a thread's
// four codes of a 16-byte chunk are two pairs of an operand, of keys as of queries; of V the page has them so that these are the tokens
// whose scores the thread has. A second kernel merges the parts.
//
// Scales of pages are powers of two. K's goes into the factor of the scores; V's goes into the exponent: a weight is 2^(s + log2(scale)),
// relative to the largest such, so that V's codes are added up as they are, and the row's sum takes the weight over the scale.
#include "kernels/attention/code_tile.cuh"
#include "kernels/cache/e4m3_pages.cuh"
#include "kernels/common/bf16.cuh"
#include "kernels/ptx/cp_async.cuh"
#include "kernels/ptx/exp2.cuh"
#include "kernels/ptx/mma.cuh"

namespace longview::kernels {
namespace {

constexpr int kStepKeys = 32, kTiles = kStepKeys / 8, kStages = 3;

// Of 32 keys and their values: K as in the page, V [D, 2 chunks of 16 tokens], then the scales of both, 16 bytes each.
template <int D>
constexpr uint32_t kKeyBytes = kStepKeys * D;
template <int D>
constexpr uint32_t kStageBytes = 2 * kKeyBytes<D> + 128;

// Where a dimension's tokens lie: eight rows of a matrix are in different banks.
__device__ inline uint32_t value_place(int dimension, int chunk) { return static_cast<uint32_t>(dimension * 32 + (chunk ^ dimension / 4 % 2) * 16); }

// Starts copying tokens first .. first + 31. `block`: the head's K block of the page, V behind it.
template <int D>
__device__ inline void load_step(uint32_t to, const char* block, int first) {
  const int lane = static_cast<int>(threadIdx.x);
  const char* values = block + page_block_bytes(PageFormat::kE4M3, D);
#pragma unroll
  for (int i = 0; i < static_cast<int>(kKeyBytes<D>) / 512; ++i) {
    const int item = lane + 32 * i;
    ptx::cp_async_16(to + item * 16, block + first * D + item * 16, true);
    ptx::cp_async_16_of_line(to + kKeyBytes<D> + value_place(item / 2, item % 2), values + e4m3_value_offset(first + item % 2 * 16, item / 2));
  }
  if (lane < 2) ptx::cp_async_16(to + 2 * kKeyBytes<D> + lane * 16, (lane == 0 ? block : values) + kPageTokens * D, true);
}

// A thread holds parts of rows lane / 4 and + 8. Their results are of the dimensions 8 j + lane % 4 * 2 + i % 2 at out[j][i].
template <int D>
struct Rows {
  float score[4 * kTiles], maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, out[D / 8][4] = {}, scale[2];
  uint32_t query[D / 16][4];
  float key_scale, value_scale;

  // `stage`: in shared memory, as an address and a pointer.
  __device__ void multiply_keys(uint32_t stage, const char* bytes) {
    key_scale = *reinterpret_cast<const float*>(bytes + 2 * kKeyBytes<D>);
    value_scale = *reinterpret_cast<const float*>(bytes + 2 * kKeyBytes<D> + 16);
#pragma unroll
    for (int i = 0; i < 4 * kTiles; ++i) score[i] = 0;
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      uint32_t codes[4];  // of a tile each
      ptx::ldmatrix_x4(codes, stage + static_cast<uint32_t>(e4m3_key_offset(D, threadIdx.x, i * 16)));
#pragma unroll
      for (int j = 0; j < kTiles; ++j) ptx::mma_f16(reinterpret_cast<float(&)[4]>(score[4 * j]), query[i], half_low(codes[j]), half_high(codes[j]));
    }
  }
  // Scores become weights, earlier results shrink.
  __device__ void soften() {
    const float lift = log2f(value_scale), share = 1 / value_scale;
    float factor[2], base[2], slope[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      slope[r] = scale[r] * key_scale;
      float highest = -INFINITY;
#pragma unroll
      for (int j = 0; j < kTiles; ++j) highest = fmaxf(highest, fmaxf(score[4 * j + 2 * r], score[4 * j + 2 * r + 1]));
      highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
      highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2));
      highest = fmaxf(maximum[r], fmaf(highest, slope[r], lift));
      const float finite = highest == -INFINITY ? 0.0f : highest;  // a row that has seen nothing yet
      factor[r] = ptx::exp2(maximum[r] - finite);
      maximum[r] = highest;
      base[r] = finite - lift;
    }
    if (__any_sync(0xffffffffu, factor[0] != 1.0f || factor[1] != 1.0f))
#pragma unroll
      for (int j = 0; j < D / 8; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) out[j][i] *= factor[i / 2];
    float added[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < 4 * kTiles; ++i) added[i / 2 % 2] += score[i] = ptx::exp2(fmaf(score[i], slope[i / 2 % 2], -base[i / 2 % 2]));
#pragma unroll
    for (int r = 0; r < 2; ++r) sum[r] = fmaf(sum[r], factor[r], added[r] * share);
  }
  // Values of the step's tokens from `visible` on count as zeros: what was left there may be no number.
  __device__ void multiply_values(uint32_t stage, int visible) {
    uint32_t weight[2][4], mask[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        weight[i][j] = pack_half(score[8 * i + 2 * j], score[8 * i + 2 * j + 1]);
        if (i * 16 + j / 2 * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + j % 2 < visible) mask[i] |= 0xffu << 8 * j;
      }
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      uint32_t codes[4];  // of both chunks of eight dimensions, then of the next eight
      ptx::ldmatrix_x4(codes, stage + kKeyBytes<D> + value_place(i * 16 + static_cast<int>(threadIdx.x) / 16 * 8 + static_cast<int>(threadIdx.x) % 8, static_cast<int>(threadIdx.x) / 8 % 2));
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        codes[j] &= mask[j % 2];
        ptx::mma_f16(out[2 * i + j / 2], weight[j % 2], half_low(codes[j]), half_high(codes[j]));
      }
    }
  }

  __device__ static uint32_t pack_half(float low, float high) {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
};

template <int D>
__global__ void __launch_bounds__(32, kCodeBlocks) attention_e4m3_kernel(const AttentionPlan p) {
  __shared__ __align__(128) char shared[kStages * kStageBytes<D>];
  static_assert(sizeof shared == attention_e4m3_shared_bytes(D));
  const AttentionArgs& a = p.args;
  const CodeTile tile(p, kStepKeys);
  const int lane = threadIdx.x;
  const uint32_t ring = ptx::shared_address(shared);
  const auto stage_of = [&](int64_t step) { return static_cast<uint32_t>((step - tile.begin) % kStages) * kStageBytes<D>; };
  const auto load = [&](int64_t step) {
    const int64_t token = step * kStepKeys;
    if (step < tile.end) load_step<D>(ring + stage_of(step), tile.block<PageFormat::kE4M3>(token), static_cast<int>(token % kPageTokens));
    ptx::cp_async_commit();
  };
  // Recorded work reads keys that lie there already (api/attention.h): they need not wait for the kernel that writes the last one.
  const bool early = a.position && min(tile.begin + kStages, tile.end) * kStepKeys <= tile.first_position;
  if (early)
    for (int i = 0; i < kStages; ++i) load(tile.begin + i);
  ptx::wait_for_previous();
  ptx::start_dependents();
  if (!early)
    for (int i = 0; i < kStages; ++i) load(tile.begin + i);

  // Queries are divided by a power of two of their row, so that fp16 holds them.
  Rows<D> rows;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float x[D / 16][4], largest = 0;
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      uint2 four = {0, 0};
      if (tile.row[r] < p.rows) four = *reinterpret_cast<const uint2*>(static_cast<const __nv_bfloat16*>(a.q) + tile.offset(r) + i * 16 + lane % 4 * 4);
      const float2 low = unpack_bf16(four.x), high = unpack_bf16(four.y);
      x[i][0] = low.x, x[i][1] = low.y, x[i][2] = high.x, x[i][3] = high.y;
#pragma unroll
      for (int j = 0; j < 4; ++j) largest = fmaxf(largest, fabsf(x[i][j]));
    }
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
    const float unit = e4m3_page_scale(largest), inverse = 1 / unit;
    rows.scale[r] = p.scale * unit;
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      rows.query[i][r] = Rows<D>::pack_half(x[i][0] * inverse, x[i][1] * inverse);
      rows.query[i][2 + r] = Rows<D>::pack_half(x[i][2] * inverse, x[i][3] * inverse);
    }
  }

  for (int64_t step = tile.begin; step < tile.end; ++step) {
    ptx::cp_async_wait<kStages - 1>();
    __syncwarp();
    const int64_t token = step * kStepKeys;
    rows.multiply_keys(ring + stage_of(step), shared + stage_of(step));
    tile.hide(rows.score, token, kStepKeys);
    rows.soften();
    rows.multiply_values(ring + stage_of(step), static_cast<int>(min(tile.visible - token, int64_t{kStepKeys})));
    __syncwarp();
    load(step + kStages);
  }

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    rows.sum[r] += __shfl_xor_sync(0xffffffffu, rows.sum[r], 1);
    rows.sum[r] += __shfl_xor_sync(0xffffffffu, rows.sum[r], 2);
    if (tile.row[r] >= p.rows) continue;
    const int64_t at = tile.of_part(r);
    if (p.parts > 1 && lane % 4 == 0) {
      p.maximum[at] = rows.maximum[r];
      p.sum[at] = rows.sum[r];
    }
    const float factor = 1.0f / rows.sum[r];
#pragma unroll
    for (int j = 0; j < D / 8; ++j) {
      const int dimension = 8 * j + lane % 4 * 2;
      const float x = rows.out[j][2 * r], y = rows.out[j][2 * r + 1];
      if (p.parts > 1) *reinterpret_cast<float2*>(p.output + at * D + dimension) = {x, y};
      else *reinterpret_cast<uint32_t*>(static_cast<__nv_bfloat16*>(a.out) + tile.offset(r) + dimension) = pack_bf16(x * factor, y * factor);
    }
  }
}

}  // namespace

Status launch_attention_e4m3(const AttentionPlan& p, Stream stream) {
  return launch_code_tiles(p.args.kv.head_dim == 64 ? attention_e4m3_kernel<64> : attention_e4m3_kernel<128>, p, stream);
}

}  // namespace longview::kernels
