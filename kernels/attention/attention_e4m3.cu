// Attention of few queries (decode) over e4m3 pages, read as they are.
//
// A warp takes 16 rows, which are (token, head) pairs of one KV head, and a part of the keys, 32 at a time. Codes go from memory to
// registers and become fp16 operands of the tensor cores there. As in attention_q8 each thread takes 16 dimensions of queries and keys
// that lie together. Which of the 32 keys is which column of the scores is chosen so that a thread's eight columns are the eight
// tokens of a dimension that lie together. K is asked for again as soon as its scores are there, V when its product is. A second
// kernel merges the parts.
//
// Scales of pages are powers of two. K's goes into the factor of the scores; V's goes into the exponent: a weight is 2^(s + log2(scale)),
// relative to the largest such, so that V's codes are added up as they are, and the row's sum takes the weight over the scale.
#include "kernels/attention/attention.cuh"
#include "kernels/cache/e4m3_pages.cuh"
#include "kernels/common/bf16.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"
#include "kernels/ptx/exp2.cuh"
#include "kernels/ptx/mma.cuh"

namespace longview::kernels {
namespace {

constexpr int kStepKeys = 32, kTiles = kStepKeys / 8;

// The token, of a step's 32, of column 2 * quarter + e of the scores' tile of eight: V's bytes 8 * quarter .. + 7 are those of the
// tiles' columns 2 * quarter, + 1, one tile after the other.
__device__ constexpr int token_of(int tile, int quarter, int e) { return quarter / 2 * 16 + tile % 2 * 8 + quarter % 2 * 4 + tile / 2 * 2 + e; }

// A thread holds parts of rows lane / 4 and + 8. Their results are of the dimensions 8 j + lane % 4 * 2 + i % 2 at out[j][i].
template <int D>
struct Rows {
  static constexpr int kHalves = D / 64;
  float score[kTiles][4], maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, out[D / 8][4] = {}, scale[2];
  uint32_t query[D / 16][4];
  // Of keys token_of(j, lane / 8, lane / 4 % 2): 16 dimensions of each 64 from lane % 4 * 16 on.
  uint32_t keys[kTiles][kHalves][4];
  // Of dimensions 8 j + lane / 4: the tokens token_of(0 .. 3, lane % 4, 0 .. 1).
  uint2 values[D / 8];
  float key_scale, value_scale;

  // `block`: the head's K block of the page, V behind it.
  __device__ void load_keys(const char* block, int first) {
    const int lane = threadIdx.x;
#pragma unroll
    for (int j = 0; j < kTiles; ++j)
#pragma unroll
      for (int h = 0; h < kHalves; ++h) *reinterpret_cast<uint4*>(keys[j][h]) = *reinterpret_cast<const uint4*>(block + e4m3_key_offset(D, first + token_of(j, lane / 8, lane / 4 % 2), h * 64 + lane % 4 * 16));
    key_scale = e4m3_scale_of<D>(block);
  }
  // Tokens of the page from `visible` on count as zeros: what was left there may be no number.
  __device__ void load_values(const char* block, int first, int visible) {
    const int lane = threadIdx.x, quarter = lane % 4;
    block += page_block_bytes(PageFormat::kE4M3, D);
    const char* row = block + e4m3_value_offset(first + token_of(0, quarter, 0), lane / 4);
#pragma unroll
    for (int j = 0; j < D / 8; ++j) values[j] = *reinterpret_cast<const uint2*>(row + 8 * j * kPageTokens);
    value_scale = e4m3_scale_of<D>(block);
    if (first + kStepKeys <= visible) return;
    uint2 mask = {0, 0};
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (first + token_of(i / 2, quarter, i % 2) < visible) (i < 4 ? mask.x : mask.y) |= 0xffu << i % 4 * 8;
#pragma unroll
    for (int j = 0; j < D / 8; ++j) values[j] = {values[j].x & mask.x, values[j].y & mask.y};
  }

  __device__ void multiply_keys() {
#pragma unroll
    for (int j = 0; j < kTiles; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) score[j][i] = 0;
#pragma unroll
    for (int i = 0; i < D / 16; ++i)
#pragma unroll
      for (int j = 0; j < kTiles; ++j) ptx::mma_f16(score[j], query[i], half_low(keys[j][i / 4][i % 4]), half_high(keys[j][i / 4][i % 4]));
  }
  // Keys behind each row's last visible one, counted from the step's first.
  __device__ void hide(int limit0, int limit1) {
    const int limit[2] = {limit0, limit1};
#pragma unroll
    for (int j = 0; j < kTiles; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (token_of(j, threadIdx.x % 4, i % 2) > limit[i / 2]) score[j][i] = -INFINITY;
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
      for (int j = 0; j < kTiles; ++j) highest = fmaxf(highest, fmaxf(score[j][2 * r], score[j][2 * r + 1]));
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
    for (int j = 0; j < kTiles; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) added[i / 2] += score[j][i] = ptx::exp2(fmaf(score[j][i], slope[i / 2], -base[i / 2]));
#pragma unroll
    for (int r = 0; r < 2; ++r) sum[r] = fmaf(sum[r], factor[r], added[r] * share);
  }
  __device__ void multiply_values() {
#pragma unroll
    for (int word = 0; word < kTiles / 2; ++word) {
      uint32_t weight[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) weight[i] = pack_half(score[2 * word + i / 2][i % 2 * 2], score[2 * word + i / 2][i % 2 * 2 + 1]);
#pragma unroll
      for (int j = 0; j < D / 8; ++j) {
        const uint32_t codes = word == 0 ? values[j].x : values[j].y;
        ptx::mma_f16(out[j], weight, half_low(codes), half_high(codes));
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
  ptx::start_dependents();
  ptx::wait_for_previous();
  const AttentionArgs& a = p.args;
  const int64_t first_position = a.position ? *a.position : a.first_position;
  const int64_t part = blockIdx.y % p.parts, kv_head = blockIdx.y / p.parts, first_row = (p.tiles - 1 - blockIdx.x) * kCodeRows;  // the longest first
  const int group = static_cast<int>(p.group), lane = threadIdx.x;
  const int64_t row[2] = {first_row + lane / 4, first_row + lane / 4 + 8};
  const auto offset = [&](int r) { return (row[r] / group * a.heads + kv_head * group + row[r] % group) * D; };

  // Queries are divided by a power of two of their row, so that fp16 holds them.
  Rows<D> rows;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float x[D / 16][4], largest = 0;
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      uint2 four = {0, 0};
      if (row[r] < p.rows) four = *reinterpret_cast<const uint2*>(static_cast<const __nv_bfloat16*>(a.q) + offset(r) + i / 4 * 64 + lane % 4 * 16 + i % 4 * 4);
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

  // Keys that the tile's last row sees, and this part of them.
  const int64_t visible = first_position + (min(first_row + kCodeRows, p.rows) - 1) / group + 1, steps = ceil_div(visible, kStepKeys);
  const int64_t begin = steps * part / p.parts, end = steps * (part + 1) / p.parts;
  const int64_t position[2] = {first_position + row[0] / group, first_position + row[1] / group};
  const int64_t first_visible = first_position + first_row / group, head_bytes = (a.kv.layer * a.kv.kv_heads + kv_head) * 2 * page_block_bytes(PageFormat::kE4M3, D);
  const auto block_of = [&](int64_t step) { return static_cast<const char*>(a.kv.pages[step * kStepKeys / kPageTokens]) + head_bytes; };
  const auto load_keys = [&](int64_t step) { rows.load_keys(block_of(step), static_cast<int>(step * kStepKeys % kPageTokens)); };
  const auto load_values = [&](int64_t step) {
    const int64_t page = step * kStepKeys / kPageTokens;
    rows.load_values(block_of(step), static_cast<int>(step * kStepKeys % kPageTokens), static_cast<int>(min(visible - page * kPageTokens, kPageTokens)));
  };
  if (begin < end) {
    load_keys(begin);
    load_values(begin);
  }
  for (int64_t step = begin; step < end; ++step) {
    rows.multiply_keys();
    const int64_t token = step * kStepKeys;
    if (token + kStepKeys > first_visible + 1)  // the diagonal crosses these keys
      rows.hide(static_cast<int>(position[0] - token), static_cast<int>(position[1] - token));
    rows.soften();
    if (step + 1 < end) load_keys(step + 1);
    rows.multiply_values();
    if (step + 1 < end) load_values(step + 1);
  }

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    rows.sum[r] += __shfl_xor_sync(0xffffffffu, rows.sum[r], 1);
    rows.sum[r] += __shfl_xor_sync(0xffffffffu, rows.sum[r], 2);
    if (row[r] >= p.rows) continue;
    const int64_t at = (part * a.kv.kv_heads + kv_head) * p.rows + row[r];
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
      else *reinterpret_cast<uint32_t*>(static_cast<__nv_bfloat16*>(a.out) + offset(r) + dimension) = pack_bf16(x * factor, y * factor);
    }
  }
}

}  // namespace

Status launch_attention_e4m3(const AttentionPlan& p, Stream stream) {
  const dim3 grid(static_cast<unsigned>(p.tiles), static_cast<unsigned>(p.args.kv.kv_heads * p.parts));
  if (const Status status = launch_dependent(p.args.kv.head_dim == 64 ? attention_e4m3_kernel<64> : attention_e4m3_kernel<128>, grid, 32, 0, stream, p)) return status;
  return p.parts == 1 ? kOk : launch_merge(p, stream);
}

}  // namespace longview::kernels
