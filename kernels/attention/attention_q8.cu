// Attention of few queries (decode) over q8 pages, read as they are.
//
// A warp takes the tile's 16 rows (attention/code_tile.cuh) and 16 keys at a time. Codes go from memory to
// registers and become the operands of the tensor cores there: a product's sums do not ask for an order of its dimensions, so each
// thread takes 16 that lie together, of queries as of keys; of the results each takes the dimensions whose values it read. The next
// 16 keys are under way while these are multiplied.
#include "kernels/attention/code_tile.cuh"
#include "kernels/cache/q8.cuh"
#include "kernels/common/bf16.cuh"
#include "kernels/ptx/exp2.cuh"
#include "kernels/ptx/mma.cuh"

namespace longview::kernels {
namespace {

constexpr int kStepKeys = 16;

// What a thread holds of 16 keys and values. K: of keys lane / 4 and + 8, 16 dimensions of each 64 from lane % 4 * 16 on. V: of keys
// lane % 4 * 2, + 1, + 8, + 9, D / 8 dimensions from lane / 4 * D / 8 on.
template <int D>
struct Codes {
  static constexpr int kHalves = D / 64, kValueWords = D / 32;
  uint32_t keys[2][kHalves][4], values[4][kValueWords];
  __nv_bfloat16 key_scales[2][kHalves], value_scales[4];

  // `block`: the head's K block of the page, V behind it. Values from the token `visible` of the page on count as zeros.
  __device__ void load(const char* block, int first, int visible) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int token = first + lane / 4 + 8 * j;
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
        const int dimension = h * 64 + lane % 4 * 16;
        *reinterpret_cast<uint4*>(keys[j][h]) = *reinterpret_cast<const uint4*>(block + token * D + dimension);
        key_scales[j][h] = q8_scale(block, D, token, dimension);
      }
    }
    block += page_block_bytes(PageFormat::kQ8, D);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int token = first + lane % 4 * 2 + k % 2 + k / 2 * 8, dimension = lane / 4 * (D / 8);
      if constexpr (D == 128) *reinterpret_cast<uint4*>(values[k]) = *reinterpret_cast<const uint4*>(block + token * D + dimension);
      else *reinterpret_cast<uint2*>(values[k]) = *reinterpret_cast<const uint2*>(block + token * D + dimension);
      value_scales[k] = token < visible ? q8_scale(block, D, token, dimension) : __nv_bfloat16(__nv_bfloat16_raw{0});
    }
  }
};

// A thread holds parts of rows lane / 4 and + 8. Their results are of the dimensions (lane % 4 * 2 + i % 2) * D / 8 + j at out[j][i].
template <int D>
struct Rows {
  float score[8], maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, out[D / 8][4] = {};
  uint32_t query[D / 16][4];

  __device__ void multiply_keys(const Codes<D>& c) {
#pragma unroll
    for (int i = 0; i < 8; ++i) score[i] = 0;
#pragma unroll
    for (int i = 0; i < D / 16; ++i)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const __nv_bfloat162 scales = {c.key_scales[j][i / 4], c.key_scales[j][i / 4]};
        const uint32_t word = c.keys[j][i / 4][i % 4];
        ptx::mma_bf16(reinterpret_cast<float(&)[4]>(score[4 * j]), query[i], q8_bits(q8_low(word), scales), q8_bits(q8_high(word), scales));
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
  __device__ void multiply_values(const Codes<D>& c) {
    uint32_t weight[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) weight[i] = pack_bf16(score[2 * i], score[2 * i + 1]);
    const __nv_bfloat162 near = {c.value_scales[0], c.value_scales[1]}, far = {c.value_scales[2], c.value_scales[3]};
#pragma unroll
    for (int word = 0; word < Codes<D>::kValueWords; ++word)
#pragma unroll
      for (int two = 0; two < 2; ++two) {  // codes of two neighbouring keys side by side, two dimensions
        const uint32_t order = two == 0 ? 0x5140 : 0x7362;
        const uint32_t a = __byte_perm(c.values[0][word], c.values[1][word], order), b = __byte_perm(c.values[2][word], c.values[3][word], order);
        ptx::mma_bf16(out[4 * word + 2 * two], weight, q8_bits(q8_low(a), near), q8_bits(q8_low(b), far));
        ptx::mma_bf16(out[4 * word + 2 * two + 1], weight, q8_bits(q8_high(a), near), q8_bits(q8_high(b), far));
      }
  }
};

template <int D>
__global__ void __launch_bounds__(kJoinThreads, kCodeBlocks) attention_q8_kernel(const AttentionPlan p) {
  extern __shared__ __align__(128) char shared[];
  ptx::start_dependents();
  ptx::wait_for_previous();
  const AttentionArgs& a = p.args;
  const CodeTile tile(p, kStepKeys);
  const int lane = threadIdx.x % 32;

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

  const auto load = [&](Codes<D>& codes, int64_t step) {
    const int64_t token = step * kStepKeys, of_page = token % kPageTokens;
    codes.load(tile.block<PageFormat::kQ8>(token), static_cast<int>(of_page), static_cast<int>(min(tile.visible - token + of_page, kPageTokens)));
  };
  const auto take = [&](const Codes<D>& codes, int64_t step) {
    rows.multiply_keys(codes);
    tile.hide(rows.score, step * kStepKeys, kStepKeys);
    rows.soften(p.scale);
    rows.multiply_values(codes);
  };
  constexpr int kNext = kJoinWarps;
  Codes<D> codes[2];
  if (tile.first < tile.end) load(codes[0], tile.first);
  for (int64_t step = tile.first; step < tile.end; step += 2 * kNext) {
    if (step + kNext < tile.end) load(codes[1], step + kNext);
    take(codes[0], step);
    if (step + kNext >= tile.end) break;
    if (step + 2 * kNext < tile.end) load(codes[0], step + 2 * kNext);
    take(codes[1], step + kNext);
  }

  join_sums(rows.sum);
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
  return launch_code_tiles(p.args.kv.head_dim == 64 ? attention_q8_kernel<64> : attention_q8_kernel<128>, kJoinSharedBytes, p, stream);
}

}  // namespace longview::kernels
