// Attention of few queries (decode) over q8 pages, read as they are.
//
// A warp takes the tile's 16 rows (attention/code_tile.cuh) and 32 keys at a time, through its own stages of cp.async, half of them at
// once. Codes become the operands of the tensor cores in registers: a product's sums do not ask for an order of its dimensions, so each
// thread takes 16 that lie together, of queries as of keys; of the results each takes the dimensions whose values it read.
#include "kernels/attention/code_tile.cuh"
#include "kernels/cache/q8.cuh"
#include "kernels/common/bf16.cuh"
#include "kernels/ptx/cp_async.cuh"
#include "kernels/ptx/exp2.cuh"
#include "kernels/ptx/mma.cuh"

namespace longview::kernels {
namespace {

constexpr int kStepKeys = 32, kHalfKeys = 16, kStages = 2;

// Of 32 keys, then their values: codes [32, D], scales [32, D / 32].
template <int D>
constexpr uint32_t kCodeBytes = kStepKeys * D;
template <int D>
constexpr uint32_t kBlockBytes = kCodeBytes<D> + kCodeBytes<D> / kQ8Block * 2;
template <int D>
constexpr uint32_t kStageBytes = 2 * kBlockBytes<D>;

// Where 16 codes of a token lie: those that eight threads read together are in different banks, of keys (two tokens that follow each other)
// and of values (every second of eight).
template <int D>
__device__ inline uint32_t code_place(int token, int chunk) {
  return static_cast<uint32_t>(token * D + (chunk ^ (D == 128 ? token / 2 % 4 * 2 ^ token % 2 * 4 : token / 2 % 2 * 2)) * 16);
}

// Starts copying tokens first .. first + 31. `block`: the head's K block of the page, V behind it.
template <int D>
__device__ inline void load_step(uint32_t to, const char* block, int first) {
  constexpr int kChunks = D / 16, kScaleChunks = static_cast<int>(kBlockBytes<D> - kCodeBytes<D>) / 16;
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int b = 0; b < 2; ++b) {
    const char* codes = block + b * page_block_bytes(PageFormat::kQ8, D) + first * D + lane * 16;
#pragma unroll
    for (int i = 0; i < static_cast<int>(kCodeBytes<D>) / 512; ++i)
      ptx::cp_async_16(to + b * kBlockBytes<D> + code_place<D>((lane + 32 * i) / kChunks, lane % kChunks), codes + i * 512, true);
  }
  const int b = lane / kScaleChunks, chunk = lane % kScaleChunks;
  if (b < 2) ptx::cp_async_16(to + b * kBlockBytes<D> + kCodeBytes<D> + chunk * 16, block + b * page_block_bytes(PageFormat::kQ8, D) + kPageTokens * D + first * (D / kQ8Block * 2) + chunk * 16, true);
}

// The scale of a dimension of a token of `block`, which holds either's.
template <int D>
__device__ inline __nv_bfloat16 scale_of(const char* block, int token, int dimension) {
  return reinterpret_cast<const __nv_bfloat16*>(block + kCodeBytes<D>)[token * (D / static_cast<int>(kQ8Block)) + dimension / static_cast<int>(kQ8Block)];
}

// A thread holds parts of rows lane / 4 and + 8. Their results are of the dimensions (lane % 4 * 2 + i % 2) * D / 8 + j at out[j][i].
template <int D>
struct Rows {
  float score[8], maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, out[D / 8][4] = {};
  uint32_t query[D / 16][4];

  // Keys first .. first + 15 of the stage. A thread has keys lane / 4 and + 8, 16 dimensions of each 64 from lane % 4 * 16 on.
  __device__ void multiply_keys(const char* stage, int first) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 8; ++i) score[i] = 0;
#pragma unroll
    for (int h = 0; h < D / 64; ++h)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int token = first + lane / 4 + 8 * j;
        const uint4 four = *reinterpret_cast<const uint4*>(stage + code_place<D>(token, h * 4 + lane % 4));
        const __nv_bfloat162 scales = __bfloat162bfloat162(scale_of<D>(stage, token, h * 64 + lane % 4 * 16));
        const uint32_t words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) ptx::mma_bf16(reinterpret_cast<float(&)[4]>(score[4 * j]), query[4 * h + i], q8_bits(q8_low(words[i]), scales), q8_bits(q8_high(words[i]), scales));
      }
  }
  // Scores become weights, earlier results shrink.
  __device__ void soften(float scale) {
    float factor[2], base[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float highest = fmaxf(fmaxf(score[2 * r], score[2 * r + 1]), fmaxf(score[4 + 2 * r], score[5 + 2 * r]));
      highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
      highest = fmaxf(maximum[r], fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2)));
      const float finite = highest == -INFINITY ? 0.0f : highest;  // a row that has seen nothing yet
      factor[r] = ptx::exp2((maximum[r] - finite) * scale);
      maximum[r] = highest;
      base[r] = finite * scale;
      sum[r] *= factor[r];
    }
    if (__any_sync(0xffffffffu, factor[0] != 1.0f || factor[1] != 1.0f))
#pragma unroll
      for (int j = 0; j < D / 8; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) out[j][i] *= factor[i / 2];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      score[i] = ptx::exp2(fmaf(score[i], scale, -base[i / 2 % 2]));
      sum[i / 2 % 2] += score[i];
    }
  }
  // Of these keys, of which those from `visible` on count as zeros. A thread has keys lane % 4 * 2, + 1, + 8, + 9, D / 8 dimensions from
  // lane / 4 * D / 8 on.
  __device__ void multiply_values(const char* stage, int first, int visible) {
    constexpr int kWords = D / 32;
    const int lane = threadIdx.x % 32;
    uint32_t weight[4], values[4][kWords];
    __nv_bfloat16 scales[4];
    stage += kBlockBytes<D>;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      weight[k] = pack_bf16(score[2 * k], score[2 * k + 1]);
      const int token = first + lane % 4 * 2 + k % 2 + k / 2 * 8, dimension = lane / 4 * (D / 8);
      const char* codes = stage + code_place<D>(token, dimension / 16) + dimension % 16;
      if constexpr (D == 128) *reinterpret_cast<uint4*>(values[k]) = *reinterpret_cast<const uint4*>(codes);
      else *reinterpret_cast<uint2*>(values[k]) = *reinterpret_cast<const uint2*>(codes);
      scales[k] = token < visible ? scale_of<D>(stage, token, dimension) : __nv_bfloat16(__nv_bfloat16_raw{0});
    }
    const __nv_bfloat162 near = {scales[0], scales[1]}, far = {scales[2], scales[3]};
#pragma unroll
    for (int word = 0; word < kWords; ++word)
#pragma unroll
      for (int two = 0; two < 2; ++two) {  // codes of two neighbouring keys side by side, two dimensions
        const uint32_t order = two == 0 ? 0x5140 : 0x7362;
        const uint32_t a = __byte_perm(values[0][word], values[1][word], order), b = __byte_perm(values[2][word], values[3][word], order);
        ptx::mma_bf16(out[4 * word + 2 * two], weight, q8_bits(q8_low(a), near), q8_bits(q8_low(b), far));
        ptx::mma_bf16(out[4 * word + 2 * two + 1], weight, q8_bits(q8_high(a), near), q8_bits(q8_high(b), far));
      }
  }
};

template <int D>
__global__ void __maxnreg__(kJoinRegisters) attention_q8_kernel(const AttentionPlan p) {
  extern __shared__ __align__(128) char shared[];
  static_assert(kJoinWarps * kStages * kStageBytes<D> <= attention_q8_shared_bytes(D));
  const AttentionArgs& a = p.args;
  const CodeTile tile(p, kStepKeys);
  const int lane = threadIdx.x % 32;
  char* own = shared + threadIdx.x / 32 * (kStages * kStageBytes<D>);  // stages of this warp
  const auto stage_of = [&](int i) { return static_cast<uint32_t>(i % kStages) * kStageBytes<D>; };
  const auto load = [&](int i) {  // the warp's step i
    const int64_t step = tile.first + i * kJoinWarps, token = step * kStepKeys;
    if (step < tile.end) load_step<D>(ptx::shared_address(own) + stage_of(i), tile.block<PageFormat::kQ8>(token), static_cast<int>(token % kPageTokens));
    ptx::cp_async_commit();
  };
  // Recorded work reads keys that lie there already (api/attention.h): they need not wait for the kernel that writes the last one.
  const bool early = a.position && min(tile.begin + kStages * kJoinWarps, tile.end) * kStepKeys <= tile.first_position;
  if (early)
    for (int i = 0; i < kStages; ++i) load(i);
  ptx::wait_for_previous();
  ptx::start_dependents();

  Rows<D> rows;
#pragma unroll
  for (int i = 0; i < D / 16; ++i)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      uint2 four = {0, 0};
      if (tile.row[r] < p.rows) four = *reinterpret_cast<const uint2*>(static_cast<const __nv_bfloat16*>(a.q) + tile.offset[r] + i / 4 * 64 + lane % 4 * 16 + i % 4 * 4);
      rows.query[i][r] = four.x;
      rows.query[i][2 + r] = four.y;
    }

  if (!early)
    for (int i = 0; i < kStages; ++i) load(i);

  for (int i = 0; tile.first + i * kJoinWarps < tile.end; ++i) {
    ptx::cp_async_wait<kStages - 1>();
    __syncwarp();
    const int64_t token = (tile.first + i * kJoinWarps) * kStepKeys;
    const char* stage = own + stage_of(i);
#pragma unroll
    for (int half = 0; half < kStepKeys; half += kHalfKeys) {
      rows.multiply_keys(stage, half);
      tile.hide(rows.score, token + half, kHalfKeys);
      rows.soften(p.scale);
      rows.multiply_values(stage, half, static_cast<int>(min(tile.visible - token, int64_t{kStepKeys})));
    }
    __syncwarp();
    load(i + kStages);
  }
  ptx::cp_async_wait<0>();
  join_sums(rows.sum);
  __syncthreads();
  const float maximum[2] = {rows.maximum[0] * p.scale, rows.maximum[1] * p.scale};
  join_block<D>(p, tile.joined(), shared, maximum, rows.sum, [&](float* to, int r) {
#pragma unroll
    for (int c = 0; c < 2; ++c)
#pragma unroll
      for (int j = 0; j < D / 8; j += 4) {
        const int i = 2 * r + c;
        *reinterpret_cast<float4*>(to + (lane % 4 * 2 + c) * (D / 8) + j) = {rows.out[j][i], rows.out[j + 1][i], rows.out[j + 2][i], rows.out[j + 3][i]};
      }
  });
}

}  // namespace

Status launch_attention_q8(const AttentionPlan& p, Stream stream) {
  return launch_code_tiles(p.args.kv.head_dim == 64 ? attention_q8_kernel<64> : attention_q8_kernel<128>, attention_q8_shared_bytes(p.args.kv.head_dim), p, stream);
}

}  // namespace longview::kernels
