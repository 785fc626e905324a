// Attention of few queries (decode) over e4m3 pages.
//
// Codes become fp16 operands of the tensor cores in registers. A product's sums do not ask for an order of its dimensions: a thread's
// four codes of a 16-byte chunk are two pairs of an operand, of keys as of queries; of V the page has them so that these are of the tokens
// whose weights the other operand has there.
//
// Scales of pages are powers of two. K's goes into the factor of the scores; V's goes into the exponent: a weight is 2^(s + log2(scale)),
// relative to the largest such, so that V's codes are added up as they are, and the row's sum takes the weight over the scale.
#include "kernels/attention/code_attention.cuh"
#include "kernels/cache/e4m3_pages.cuh"
#include "kernels/common/bf16.cuh"
#include "kernels/ptx/mma.cuh"

namespace longview::kernels {
namespace {

// Of 32 keys and their values: K as in the page, V [D, 2 chunks of 16 tokens], then the scales of both, 16 bytes each.
template <int D>
constexpr uint32_t kKeyBytes = kStepKeys * D;

// Where a dimension's tokens lie: every fourth of 32 dimensions, which a matrix has as rows, side by side and in different banks.
__device__ inline uint32_t value_place(int dimension, int chunk) {
  const int row = dimension % 4 * 8 + dimension / 4 % 8;
  return static_cast<uint32_t>((dimension / 32 * 32 + row) * 32 + (chunk ^ row / 4 % 2) * 16);
}

// Starts copying tokens first .. first + 31: keys with the scales of both, values, or all of them. `block`: the head's K block of the page, V
// behind it. A copy's places are a few bytes from those of the one before, of V from those of the one before that: nothing is reckoned for each.
template <int D, bool kKeysToo, bool kValuesToo>
__device__ inline void load_e4m3(uint32_t to, const char* block, int first) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const char *keys = block + first * D + lane * 16, *values = block + page_block_bytes(PageFormat::kE4M3, D);
  const char* chunks = values + e4m3_value_offset(first + lane % 2 * 16, lane / 2);
  const uint32_t to_keys = to + lane * 16, to_values[2] = {to + kKeyBytes<D> + value_place(lane / 2, lane % 2), to + kKeyBytes<D> + value_place(16 + lane / 2, lane % 2)};
#pragma unroll
  for (int i = 0; i < static_cast<int>(kKeyBytes<D>) / 512; ++i) {
    if constexpr (kKeysToo) ptx::cp_async_16(to_keys + i * 512, keys + i * 512, true);
    if constexpr (kValuesToo) ptx::cp_async_16_of_line(to_values[i % 2] + i / 2 * 1024, chunks + i * 16 * kPageTokens);
  }
  if (kKeysToo && lane < 2) ptx::cp_async_16(to + 2 * kKeyBytes<D> + lane * 16, (lane == 0 ? block : values) + kPageTokens * D, true);
}

__device__ inline uint32_t pack_half(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}

template <int D, int kEights>
struct E4M3Rows : CodeRows<D, kEights> {
  using CodeRows<D, kEights>::score, CodeRows<D, kEights>::out, CodeRows<D, kEights>::query;
  static constexpr int kHeadDim = D, kStepsAtOnce = kEights == 1 && D <= 128 ? 2 : 1;
  static constexpr bool kHoldsRegisters = D <= 128;
  static constexpr PageFormat kFormat = PageFormat::kE4M3;
  static constexpr uint32_t kStageBytes = 2 * kKeyBytes<D> + 128;
  static constexpr int64_t kSharedBytes = attention_e4m3_shared_bytes(D);

  __device__ static void load(uint32_t to, const char* block, int first) { load_e4m3<D, true, true>(to, block, first); }
  __device__ static void load_one(uint32_t to, const char* block, int first, int is_value) {
    if (is_value) load_e4m3<D, false, true>(to, block, first);
    else load_e4m3<D, true, false>(to, block, first);
  }

  __device__ void read_queries(const CodeTile& tile) {
    CodeRows<D, kEights>::read_queries(tile, [](int i) { return i * 16 + threadIdx.x % 4 * 4; });
  }
  // They are divided by a power of two of their row, so that fp16 holds them.
  __device__ void prepare_queries(float softmax_scale) {
#pragma unroll
    for (int n = 0; n < kEights; ++n) {
      float largest = 0;
#pragma unroll
      for (int i = 0; i < D / 16; ++i)
#pragma unroll
        for (const uint32_t two : query[n][i]) {
          const float2 x = unpack_bf16(two);
          largest = fmaxf(largest, fmaxf(fabsf(x.x), fabsf(x.y)));
        }
      const float unit = e4m3_page_scale(quad_max(largest)), inverse = 1 / unit;
#pragma unroll
      for (int c = 0; c < 2; ++c) scale[n][c] = softmax_scale * __shfl_sync(0xffffffffu, unit, (static_cast<int>(threadIdx.x) % 4 * 2 + c) * 4);
#pragma unroll
      for (int i = 0; i < D / 16; ++i)
#pragma unroll
        for (uint32_t& two : query[n][i]) {
          const float2 x = unpack_bf16(two);
          two = pack_half(x.x * inverse, x.y * inverse);
        }
    }
  }
  __device__ void multiply_keys(const char* stage) {
    key_scale = *reinterpret_cast<const float*>(stage + 2 * kKeyBytes<D>);
    value_scale = *reinterpret_cast<const float*>(stage + 2 * kKeyBytes<D> + 16);
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
      for (int n = 0; n < kEights; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) score[j][n][i] = 0;
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      uint32_t codes[4];  // of eight keys each
      ptx::ldmatrix_x4(codes, ptx::shared_address(stage) + static_cast<uint32_t>(e4m3_key_offset(D, threadIdx.x % 32, i * 16)));
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        uint32_t keys[4];
        operand(keys, codes[2 * j], codes[2 * j + 1]);
#pragma unroll
        for (int n = 0; n < kEights; ++n) ptx::mma_f16(score[j][n], keys, query[n][i][0], query[n][i][1]);
      }
    }
  }
  __device__ void soften() {
    const uint32_t bits = __float_as_uint(value_scale);  // a power of two
    float slope[kEights][2];
#pragma unroll
    for (int n = 0; n < kEights; ++n)
#pragma unroll
      for (int c = 0; c < 2; ++c) slope[n][c] = scale[n][c] * key_scale;
    CodeRows<D, kEights>::soften(slope, static_cast<float>(static_cast<int>(bits >> 23) - 127), 0, __uint_as_float((254u << 23) - bits));
  }
  // Values of the step's tokens from `visible` on count as zeros: what was left there may be no number.
  __device__ void multiply_values(const char* stage, int visible) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    uint32_t weight[2][kEights][2], mask[2] = {0, 0};
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (j * 16 + i / 2 * 8 + lane % 4 * 2 + i % 2 < visible) mask[j] |= 0xffu << 8 * i;
#pragma unroll
      for (int n = 0; n < kEights; ++n)
#pragma unroll
        for (int h = 0; h < 2; ++h) weight[j][n][h] = ptx::transpose(pack_half(score[j][n][2 * h], score[j][n][2 * h + 1]));
    }
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      uint32_t codes[4];  // of both chunks of eight dimensions, then of the next ones'
      ptx::ldmatrix_x4(codes, ptx::shared_address(stage) + kKeyBytes<D> + value_place(i / 2 * 32 + lane % 8 * 4 + i % 2 * 2 + lane / 16, lane / 8 % 2));
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        uint32_t values[4];
        operand(values, codes[j] & mask[j], codes[2 + j] & mask[j]);
#pragma unroll
        for (int n = 0; n < kEights; ++n) ptx::mma_f16(out[i][n], values, weight[j][n][0], weight[j][n][1]);
      }
    }
  }
  __device__ void put(const WarpResults<D>& to) const { CodeRows<D, kEights>::put(to, 1); }

 private:
  float scale[kEights][2], key_scale, value_scale;

  // Of four codes each of a row and of the eighth behind it.
  __device__ static void operand(uint32_t (&to)[4], uint32_t codes, uint32_t eighth) {
    const uint2 first = half_pairs(codes), second = half_pairs(eighth);
    to[0] = first.x, to[1] = second.x, to[2] = first.y, to[3] = second.y;
  }
};

}  // namespace

Status launch_attention_e4m3(const AttentionPlan& p, Stream stream) { return launch_code_attention<E4M3Rows>(p, stream); }

}  // namespace longview::kernels
