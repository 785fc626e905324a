// Attention of few queries (decode) over e4m3 pages, read as they are.
//
// A warp takes the tile's 16 rows (attention/code_tile.cuh) and 32 keys at a time, through its own stages of cp.async.
// Codes become fp16 operands of the tensor cores in registers. A product's sums do not ask for an order of its dimensions: a thread's
// four codes of a 16-byte chunk are two pairs of an operand, of keys as of queries; of V the page has them so that these are the tokens
// whose scores the thread has.
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

constexpr int kStepKeys = 32, kTiles = kStepKeys / 8, kStages = 2;

// Of 32 keys and their values: K as in the page, V [D, 2 chunks of 16 tokens], then the scales of both, 16 bytes each.
template <int D>
constexpr uint32_t kKeyBytes = kStepKeys * D;
template <int D>
constexpr uint32_t kStageBytes = 2 * kKeyBytes<D> + 128;

// Where a dimension's tokens lie: eight rows of a matrix are in different banks.
__device__ inline uint32_t value_place(int dimension, int chunk) { return static_cast<uint32_t>(dimension * 32 + (chunk ^ dimension / 4 % 2) * 16); }

// Starts copying tokens first .. first + 31. `block`: the head's K block of the page, V behind it. A copy's places are a few bytes from
// the one before, of V 16 dimensions on, which all offsets have alike: nothing is reckoned for each.
template <int D>
__device__ inline void load_step(uint32_t to, const char* block, int first) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const char *keys = block + first * D + lane * 16, *values = block + page_block_bytes(PageFormat::kE4M3, D);
  const char* chunks = values + e4m3_value_offset(first + lane % 2 * 16, lane / 2);
  const uint32_t to_keys = to + lane * 16, to_values = to + kKeyBytes<D> + value_place(lane / 2, lane % 2);
#pragma unroll
  for (int i = 0; i < static_cast<int>(kKeyBytes<D>) / 512; ++i) {
    ptx::cp_async_16(to_keys + i * 512, keys + i * 512, true);
    ptx::cp_async_16_of_line(to_values + i * 512, chunks + i * 16 * kPageTokens);
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
      ptx::ldmatrix_x4(codes, stage + static_cast<uint32_t>(e4m3_key_offset(D, threadIdx.x % 32, i * 16)));
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        const uint2 keys = half_pairs(codes[j]);
        ptx::mma_f16(reinterpret_cast<float(&)[4]>(score[4 * j]), query[i], keys.x, keys.y);
      }
    }
  }
  // Scores become weights, earlier results shrink.
  __device__ void soften() {
    const uint32_t bits = __float_as_uint(value_scale);  // a power of two
    const float lift = static_cast<float>(static_cast<int>(bits >> 23) - 127), share = __uint_as_float((254u << 23) - bits);
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
      ptx::ldmatrix_x4(codes, stage + kKeyBytes<D> + value_place(i * 16 + static_cast<int>(threadIdx.x) % 32 / 16 * 8 + static_cast<int>(threadIdx.x) % 8, static_cast<int>(threadIdx.x) / 8 % 2));
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint2 values = half_pairs(codes[j] & mask[j % 2]);
        ptx::mma_f16(out[2 * i + j / 2], weight[j % 2], values.x, values.y);
      }
    }
  }

  __device__ static uint32_t pack_half(float low, float high) {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
};

template <int D>
__global__ void __maxnreg__(kJoinRegisters) attention_e4m3_kernel(const AttentionPlan p) {
  extern __shared__ __align__(128) char shared[];
  static_assert(kJoinWarps * kStages * kStageBytes<D> <= attention_e4m3_shared_bytes(D));
  const AttentionArgs& a = p.args;
  const CodeTile tile(p, kStepKeys);
  const int lane = threadIdx.x % 32;
  char* own = shared + threadIdx.x / 32 * (kStages * kStageBytes<D>);  // stages of this warp
  const uint32_t ring = ptx::shared_address(own);
  const auto stage_of = [&](int i) { return static_cast<uint32_t>(i % kStages) * kStageBytes<D>; };
  const auto load = [&](int i) {  // the warp's step i
    const int64_t step = tile.first + i * kJoinWarps, token = step * kStepKeys;
    if (step < tile.end) load_step<D>(ring + stage_of(i), tile.block<PageFormat::kE4M3>(token), static_cast<int>(token % kPageTokens));
    ptx::cp_async_commit();
  };
  // Recorded work reads keys that lie there already (api/attention.h): they need not wait for the kernel that writes the last one.
  const bool early = a.position && min(tile.begin + kStages * kJoinWarps, tile.end) * kStepKeys <= tile.first_position;
  if (early)
    for (int i = 0; i < kStages; ++i) load(i);
  ptx::wait_for_previous();
  ptx::start_dependents();
  uint2 words[2][D / 16] = {};  // of queries, asked for first: what is asked for behind the stages waits for them
#pragma unroll
  for (int r = 0; r < 2; ++r)
#pragma unroll
    for (int i = 0; i < D / 16; ++i)
      if (tile.row[r] < p.rows) words[r][i] = *reinterpret_cast<const uint2*>(static_cast<const __nv_bfloat16*>(a.q) + tile.offset[r] + i * 16 + lane % 4 * 4);
  if (!early)
    for (int i = 0; i < kStages; ++i) load(i);

  // Queries are divided by a power of two of their row, so that fp16 holds them.
  Rows<D> rows;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float x[D / 16][4], largest = 0;
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      const float2 low = unpack_bf16(words[r][i].x), high = unpack_bf16(words[r][i].y);
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

  for (int i = 0; tile.first + i * kJoinWarps < tile.end; ++i) {
    ptx::cp_async_wait<kStages - 1>();
    __syncwarp();
    const int64_t token = (tile.first + i * kJoinWarps) * kStepKeys;
    rows.multiply_keys(ring + stage_of(i), own + stage_of(i));
    tile.hide(rows.score, token, kStepKeys);
    rows.soften();
    rows.multiply_values(ring + stage_of(i), static_cast<int>(min(tile.visible - token, int64_t{kStepKeys})));
    __syncwarp();
    load(i + kStages);
  }
  ptx::cp_async_wait<0>();
  join_sums(rows.sum);
  __syncthreads();
  join_block<D>(p, tile.joined(), shared, rows.maximum, rows.sum, [&](float* to, int r) {
#pragma unroll
    for (int j = 0; j < D / 8; ++j) *reinterpret_cast<float2*>(to + j * 8 + lane % 4 * 2) = {rows.out[j][2 * r], rows.out[j][2 * r + 1]};
  });
}

}  // namespace

Status launch_attention_e4m3(const AttentionPlan& p, Stream stream) {
  return launch_code_tiles(p.args.kv.head_dim == 64 ? attention_e4m3_kernel<64> : attention_e4m3_kernel<128>, attention_e4m3_shared_bytes(p.args.kv.head_dim), p, stream);
}

}  // namespace longview::kernels
