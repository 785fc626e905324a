// Attention of few queries (decode) over q8 pages.
//
// Codes become bf16 in registers without their scales. Those of keys multiply scores, those of values the weights.
#include "kernels/attention/code_attention.cuh"
#include "kernels/common/bf16.cuh"
#include "kernels/ptx/mma.cuh"

namespace longview::kernels {
namespace {

// Of 32 keys, then their values: codes [32, D], scales [32, D / 32].
template <int D>
constexpr uint32_t kCodeBytes = kStepKeys * D;
template <int D>
constexpr uint32_t kBlockBytes = kCodeBytes<D> + kCodeBytes<D> / kQ8Block * 2;

// The bits of a byte are those of its value times 2^-133 in bf16: up to 255 its numbers lie evenly. What codes are multiplied with is 2^80
// times as large, so that products are normal numbers: of queries below 2^47, and of weights times scales from 2^-73 on.
constexpr uint32_t kSigns = 0x80808080, kZero = 0x00800080;            // of four codes; 128, which stands for 0, twice
constexpr uint32_t kRaise = 0x67806780;                                // 2^80 twice
constexpr float kRaiseLog2 = 80, kUnraise = 0x1p-80f, kUnit = 0x1p53f;  // what products are multiplied with in the end

// Where 16 codes of a token lie: those that eight threads read together are in different banks, of keys (two tokens that follow each other)
// and of values (every second of eight).
template <int D>
__device__ inline uint32_t code_place(int token, int chunk) {
  return static_cast<uint32_t>(token * D + (chunk ^ (D >= 128 ? token / 2 % 4 * 2 ^ token % 2 * 4 : token / 2 % 2 * 2)) * 16);
}

// Start copying tokens first .. first + 31: of K (b 0) or V their codes, and a chunk of their scales. `block`: the head's K block of the page, V
// behind it.
template <int D>
__device__ inline void load_codes(uint32_t to, const char* block, int first, int b) {
  constexpr int kChunks = D / 16;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const char* codes = block + b * page_block_bytes(PageFormat::kQ8, D) + first * D + lane * 16;
  constexpr int kAtOnce = D <= 128 ? 8 : 2;  // all of them, or as many as registers are left for
#pragma unroll kAtOnce
  for (int i = 0; i < static_cast<int>(kCodeBytes<D>) / 512; ++i)
    ptx::cp_async_16(to + b * kBlockBytes<D> + code_place<D>((lane + 32 * i) / kChunks, lane % kChunks), codes + i * 512, true);
}
template <int D>
__device__ inline void load_scale_chunk(uint32_t to, const char* block, int first, int b, int chunk) {
  ptx::cp_async_16(to + b * kBlockBytes<D> + kCodeBytes<D> + chunk * 16, block + b * page_block_bytes(PageFormat::kQ8, D) + kPageTokens * D + first * (D / kQ8Block * 2) + chunk * 16, true);
}
template <int D>
constexpr int kScaleChunks = static_cast<int>(kBlockBytes<D> - kCodeBytes<D>) / 16;
static_assert(2 * kScaleChunks<128> == 32 && kScaleChunks<256> == 32);  // a warp's threads take one each

// The first and the last two codes of a word whose signs are the other way round.
__device__ inline uint32_t low_codes(uint32_t word) { return as_bits(__hsub2(as_bf16(__byte_perm(word, 0, 0x4140)), as_bf16(kZero))); }
__device__ inline uint32_t high_codes(uint32_t word) { return as_bits(__hsub2(as_bf16(__byte_perm(word, 0, 0x4342)), as_bf16(kZero))); }

template <int D, int kEights>
struct Q8Rows : CodeRows<D, kEights> {
  using CodeRows<D, kEights>::score, CodeRows<D, kEights>::out, CodeRows<D, kEights>::query;
  static constexpr int kHeadDim = D, kStepsAtOnce = kEights == 1 && D <= 128 ? 2 : 1;
  static constexpr bool kHoldsRegisters = false;  // it has as many of itself
  static constexpr PageFormat kFormat = PageFormat::kQ8;
  static constexpr uint32_t kStageBytes = 2 * kBlockBytes<D>;
  static constexpr int64_t kSharedBytes = attention_q8_shared_bytes(D);

  __device__ static void load(uint32_t to, const char* block, int first) {
    const int lane = threadIdx.x % 32, b = lane / kScaleChunks<D>;
    load_codes<D>(to, block, first, 0);
    load_codes<D>(to, block, first, 1);
    if (b < 2) load_scale_chunk<D>(to, block, first, b, lane % kScaleChunks<D>);
  }
  __device__ static void load_one(uint32_t to, const char* block, int first, int b) {  // of K or V
    load_codes<D>(to, block, first, b);
    load_scale_chunk<D>(to, block, first, b, threadIdx.x % 32);
  }

  // Of each block of 32 dimensions a thread has the 8 from lane % 4 * 8 on.
  __device__ void read_queries(const CodeTile& tile) {
    CodeRows<D, kEights>::read_queries(tile, [](int i) { return i / 2 * 32 + threadIdx.x % 4 * 8 + i % 2 * 4; });
  }
  __device__ void prepare_queries(float softmax_scale) {
#pragma unroll
    for (int n = 0; n < kEights; ++n) {
      slope[n][0] = slope[n][1] = softmax_scale * kUnit;
#pragma unroll
      for (int i = 0; i < D / 16; ++i)
#pragma unroll
        for (int two = 0; two < 2; ++two) query[n][i][two] = as_bits(__hmul2(as_bf16(query[n][i][two]), as_bf16(kRaise)));
    }
  }
  __device__ void multiply_keys(const char* stage) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int token = 16 * j + lane / 4;
      uint32_t scales[2][D / 64];  // of two blocks each
#pragma unroll
      for (int h = 0; h < 2; ++h) load_scales<D>(stage + kCodeBytes<D>, token + 8 * h, scales[h]);
#pragma unroll
      for (int b = 0; b < D / 32; ++b) {
        uint32_t keys[2][4];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const uint2 two = *reinterpret_cast<const uint2*>(stage + code_place<D>(token + 8 * h, 2 * b + lane % 4 / 2) + lane % 2 * 8);
          keys[0][h] = low_codes(two.x ^ kSigns), keys[0][2 + h] = high_codes(two.x ^ kSigns);
          keys[1][h] = low_codes(two.y ^ kSigns), keys[1][2 + h] = high_codes(two.y ^ kSigns);
        }
#pragma unroll
        for (int n = 0; n < kEights; ++n) {
          float product[4] = {};
#pragma unroll
          for (int i = 0; i < 2; ++i) ptx::mma_bf16(product, keys[i], query[n][2 * b + i][0], query[n][2 * b + i][1]);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const uint32_t two = scales[i / 2][b / 2];
            score[j][n][i] = fmaf(product[i], __uint_as_float(b % 2 == 0 ? two << 16 : two & 0xffff0000u), b == 0 ? 0.0f : score[j][n][i]);
          }
        }
      }
    }
  }
  __device__ void soften() { CodeRows<D, kEights>::soften(slope, 0, kRaiseLog2, kUnraise); }
  // Of these keys, of which those from `visible` on count as zeros. A thread has codes of keys lane % 4 * 2, + 1, + 8, + 9 of each 16,
  // four dimensions of each block of 32.
  __device__ void multiply_values(const char* stage, int visible) {
    const int lane = threadIdx.x % 32;
    stage += kBlockBytes<D>;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      uint32_t weight[kEights][2], scales[2][D / 32];  // of two keys each
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int n = 0; n < kEights; ++n) weight[n][h] = ptx::transpose(pack_bf16(score[j][n][2 * h], score[j][n][2 * h + 1]));
        const int token = 16 * j + 8 * h + lane % 4 * 2;
        const uint32_t seen = token + 1 < visible ? 0xffffffffu : token < visible ? 0xffffu : 0;
        uint32_t words[2][D / 64];
#pragma unroll
        for (int t = 0; t < 2; ++t) load_scales<D>(stage + kCodeBytes<D>, token + t, words[t]);
#pragma unroll
        for (int b = 0; b < D / 32; ++b) scales[h][b] = __byte_perm(words[0][b / 2], words[1][b / 2], b % 2 == 0 ? 0x5410 : 0x7632) & seen;
      }
#pragma unroll
      for (int b = 0; b < D / 32; ++b) {
        uint32_t values[2][4];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          uint32_t codes[2];
#pragma unroll
          for (int t = 0; t < 2; ++t) codes[t] = *reinterpret_cast<const uint32_t*>(stage + code_place<D>(16 * j + 8 * h + lane % 4 * 2 + t, 2 * b + lane / 16) + lane / 4 % 4 * 4) ^ kSigns;
          const uint32_t near = __byte_perm(codes[0], codes[1], 0x5140), far = __byte_perm(codes[0], codes[1], 0x7362);
          values[0][2 * h] = low_codes(near), values[0][2 * h + 1] = high_codes(near);
          values[1][2 * h] = low_codes(far), values[1][2 * h + 1] = high_codes(far);
        }
#pragma unroll
        for (int n = 0; n < kEights; ++n) {
          uint32_t scaled[2];
#pragma unroll
          for (int h = 0; h < 2; ++h) scaled[h] = as_bits(__hmul2(as_bf16(weight[n][h]), as_bf16(scales[h][b])));
#pragma unroll
          for (int e = 0; e < 2; ++e) ptx::mma_bf16(out[2 * b + e][n], values[e], scaled[0], scaled[1]);
        }
      }
    }
  }
  __device__ void put(const WarpResults<D>& to) const { CodeRows<D, kEights>::put(to, kUnit); }

 private:
  float slope[kEights][2];
};

}  // namespace

Status launch_attention_q8(const AttentionPlan& p, Stream stream) { return launch_code_attention<Q8Rows>(p, stream); }

}  // namespace longview::kernels
