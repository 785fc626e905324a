// Attention of few queries (decode) over q4 pages.
//
// Codes become bf16 in registers without their scales, as those of 8 bits do (attention_q8.cu). That they count less 8, the code of a zero, costs least where
// scores begin with -8 times a row's queries, and results get -8 times their weights. Keys' reference is a key of its own, the same for all of a step, whose
// score theirs are added to.
#include "kernels/attention/code_attention.cuh"
#include "kernels/attention/q4_stage.cuh"
#include "kernels/common/bf16.cuh"
#include "kernels/ptx/mma.cuh"

namespace longview::kernels {
namespace {

// The bits of a code are those of its value times 2^-133 in bf16, and four bits higher those of 16 times as much: up to 255 its numbers lie evenly.
// Of a word the even dimensions are taken as they are, the odd ones 16 times as large: their queries are a sixteenth, and so, in the end, their results. What
// codes are multiplied with is 2^80 times as large, so that products are normal numbers (attention_q8.cu).
constexpr uint32_t kEven = 0x000f000f, kOdd = 0x00f000f0;              // of a word, or of it shifted by 8: two codes
constexpr uint32_t kEvenZero = 0x00080008, kOddZero = 0x00800080;      // 8, and 128, twice
constexpr uint32_t kEvenLess = 0x80088008, kOddLess = 0x80808080;      // the same below 0
constexpr uint32_t kEvenRaise = 0x67806780, kOddRaise = 0x65806580;    // 2^80 and 2^76, twice
constexpr float kRaiseLog2 = 80, kUnraise = 0x1p-80f, kUnit = 0x1p53f;  // what products are multiplied with in the end
constexpr float kEvenLower = 0x1p-133f, kOddLower = 0x1p-129f;          // products with a reference in that unit

__device__ inline uint32_t less(uint32_t codes, uint32_t zero) { return as_bits(__hsub2(as_bf16(codes), as_bf16(zero))); }
// The halves of two words that stand side by side: the low ones, the high ones.
__device__ inline uint32_t low_halves(uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x5410); }
__device__ inline uint32_t high_halves(uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x7632); }

template <int D, int kEights>
struct Q4Rows : CodeRows<D, kEights> {
  using CodeRows<D, kEights>::score, CodeRows<D, kEights>::out, CodeRows<D, kEights>::query;
  static constexpr int kHeadDim = D, kStepsAtOnce = kEights == 1 && D <= 128 ? 2 : 1, kAtOnce = D * kEights <= 128 ? 4 : D == 256 ? 2 : 1;  // as many as registers are left for
  static constexpr bool kHoldsRegisters = D * kEights <= 128;  // others have as many of themselves
  static constexpr bool kKnowsSums = kEights == 1 || D == 64;  // else registers are too few, and codes are made less 8
  static constexpr int kBases = D * kEights <= 128 ? 4 : 2;  // as a product's results begin, or half of them, which are the other half too
  static constexpr PageFormat kFormat = PageFormat::kQ4;
  static constexpr uint32_t kStageBytes = kQ4StepBytes<D>;
  static constexpr int64_t kSharedBytes = attention_q4_shared_bytes(D);

  __device__ static void load(uint32_t to, const char* block, int first) {
    load_q4_codes<D, kAtOnce>(to, block, first, 0);
    load_q4_codes<D, kAtOnce>(to, block, first, 1);
#pragma unroll
    for (int i = 0; i < 3 * kQ4PartChunks<D>; i += 32)
      if (const int item = i + static_cast<int>(threadIdx.x) % 32; item < 3 * kQ4PartChunks<D>) load_q4_rest<D>(to, block, first, item / kQ4PartChunks<D>, item % kQ4PartChunks<D>);
  }
  __device__ static void load_one(uint32_t to, const char* block, int first, int b) {  // of K or V
    load_q4_codes<D, kAtOnce>(to, block, first, b);
    load_q4_rest<D>(to, block, first, b, threadIdx.x % 32);
    if (b == 0) load_q4_rest<D>(to, block, first, 2, threadIdx.x % 32);
  }

  // Of each block of 32 dimensions a thread has the 8 from lane % 4 * 8 on: a word of codes.
  __device__ void read_queries(const CodeTile& tile) {
    CodeRows<D, kEights>::read_queries(tile, [](int i) { return i / 2 * 32 + threadIdx.x % 4 * 8 + i % 2 * 4; });
    // Both are 0, which the compiler does not know: it would copy what is the same for each product.
    const auto near = static_cast<uint32_t>(tile.p.parts >> 62), far = static_cast<uint32_t>(tile.p.group >> 62);
    zeros[0] = kEvenLess | near, zeros[1] = kOddLess | near, zeros[2] = kEvenLess | far, zeros[3] = kOddLess | far;
  }
  // Of a block's 8, 0 and 4, 2 and 6 are those of the first product, 1 and 5, 3 and 7 of the second, as a word's codes are.
  __device__ void prepare_queries(float softmax_scale) {
    const uint32_t even[4] = {kEvenLess, kEvenLess, kEvenLess, kEvenLess}, odd[4] = {kOddLess, kOddLess, kOddLess, kOddLess};
#pragma unroll
    for (int n = 0; n < kEights; ++n) {
      slope[n][0] = slope[n][1] = softmax_scale * kUnit;
#pragma unroll
      for (int b = 0; b < D / 32; ++b) {
        auto &low = query[n][2 * b], &high = query[n][2 * b + 1];  // of dimensions 0 .. 3 and 4 .. 7
        const uint32_t paired[2][2] = {{low_halves(low[0], high[0]), low_halves(low[1], high[1])}, {high_halves(low[0], high[0]), high_halves(low[1], high[1])}};
#pragma unroll
        for (int two = 0; two < 2; ++two) {
          low[two] = as_bits(__hmul2(as_bf16(paired[0][two]), as_bf16(kEvenRaise)));
          high[two] = as_bits(__hmul2(as_bf16(paired[1][two]), as_bf16(kOddRaise)));
        }
        if constexpr (kKnowsSums) {
          float product[4] = {};
          ptx::mma_bf16(product, even, low[0], low[1]);
          ptx::mma_bf16(product, odd, high[0], high[1]);
#pragma unroll
          for (int k = 0; k < kBases; ++k) base[n][b][k] = product[k];
        }
      }
    }
  }
  __device__ void multiply_keys(const char* stage) {
    const int lane = threadIdx.x % 32;
    begin_scores(stage + kQ4CodeBytes<D> + kQ4ScaleBytes<D>);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      uint32_t scales[2][D / 64];  // of two blocks each
#pragma unroll
      for (int h = 0; h < 2; ++h) load_scales<D>(stage + kQ4CodeBytes<D>, 16 * j + 8 * h + lane / 4, scales[h]);
#pragma unroll
      for (int two = 0; two < D / 64; ++two) {
        uint32_t words[4];  // of tokens lane / 4, and 8 more, of two blocks
        ptx::ldmatrix_x4(words, ptx::shared_address(stage) + matrix_place(j, two));
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int b = 2 * two + i;
          const uint32_t near = words[2 * i], far = words[2 * i + 1];
          float product[kEights][4] = {};
#pragma unroll
          for (int n = 0; n < kEights; ++n)
            if constexpr (kKnowsSums && kBases == 2) product[n][0] = product[n][2] = base[n][b][0], product[n][1] = product[n][3] = base[n][b][1];
#pragma unroll
          for (int odd = 0; odd < 2; ++odd) {
            const uint32_t mask = odd ? kOdd : kEven;
            uint32_t keys[4] = {near & mask, far & mask, near >> 8 & mask, far >> 8 & mask};
            if constexpr (!kKnowsSums)
#pragma unroll
              for (int k = 0; k < 4; ++k) keys[k] = less(keys[k], odd ? kOddZero : kEvenZero);
#pragma unroll
            for (int n = 0; n < kEights; ++n) {
              if constexpr (kBases == 4) {
                if (odd == 0) {
                  ptx::mma_bf16(product[n], keys, query[n][2 * b][0], query[n][2 * b][1], base[n][b]);
                  continue;
                }
              }
              ptx::mma_bf16(product[n], keys, query[n][2 * b + odd][0], query[n][2 * b + odd][1]);
            }
          }
#pragma unroll
          for (int n = 0; n < kEights; ++n)
#pragma unroll
            for (int k = 0; k < 4; ++k) {
              const uint32_t both = scales[k / 2][two];
              score[j][n][k] = fmaf(product[n][k], __uint_as_float(i == 0 ? both << 16 : both & 0xffff0000u), score[j][n][k]);
            }
        }
      }
    }
  }
  __device__ void soften() { CodeRows<D, kEights>::soften(slope, 0, kRaiseLog2, kUnraise); }
  // Of these keys, of which those from `visible` on count as zeros: their scales may be no numbers. A thread has codes of keys lane % 4 * 2, + 1, + 8, + 9 of each 16,
  // four dimensions of each block of 32.
  __device__ void multiply_values(const char* stage, int visible) {
    const int lane = threadIdx.x % 32;
    stage += kQ4KeyBytes<D>;
    if (visible < kStepKeys) {
      if (lane >= visible) clear_q4_scales<D>(ptx::shared_address(stage), lane);
      __syncwarp();
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      uint32_t weight[kEights][2], scales[2][D / 32];  // of two keys each
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int n = 0; n < kEights; ++n) weight[n][h] = ptx::transpose(pack_bf16(score[j][n][2 * h], score[j][n][2 * h + 1]));
        const int token = 16 * j + 8 * h + lane % 4 * 2;
        uint32_t words[2][D / 64];
#pragma unroll
        for (int t = 0; t < 2; ++t) load_scales<D>(stage + kQ4CodeBytes<D>, token + t, words[t]);
#pragma unroll
        for (int b = 0; b < D / 32; ++b) scales[h][b] = b % 2 == 0 ? low_halves(words[0][b / 2], words[1][b / 2]) : high_halves(words[0][b / 2], words[1][b / 2]);
      }
#pragma unroll
      for (int two = 0; two < D / 64; ++two) {
        uint32_t words[4];  // four dimensions of two tokens, and of those 8 behind them, of two blocks
        ptx::ldmatrix_x4_transposed(words, ptx::shared_address(stage) + matrix_place(j, two));
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int b = 2 * two + i;
          uint32_t values[2][4];
#pragma unroll
          for (int h = 0; h < 2; ++h)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
              const uint32_t codes = words[2 * i + h] >> 8 * e;
              values[e][2 * h] = kKnowsSums ? codes & kEven : less(codes & kEven, kEvenZero);
              values[e][2 * h + 1] = kKnowsSums ? codes & kOdd : less(codes & kOdd, kOddZero);
            }
#pragma unroll
          for (int n = 0; n < kEights; ++n) {
            uint32_t scaled[2];
#pragma unroll
            for (int h = 0; h < 2; ++h) scaled[h] = as_bits(__hmul2(as_bf16(weight[n][h]), as_bf16(scales[h][b])));
#pragma unroll
            for (int e = 0; e < 2; ++e) {
              ptx::mma_bf16(out[2 * b + e][n], values[e], scaled[0], scaled[1]);
              if constexpr (kKnowsSums) ptx::mma_bf16(out[2 * b + e][n], zeros, scaled[0], scaled[1]);
            }
          }
        }
      }
    }
  }
  __device__ void put(const WarpResults<D>& to) const { CodeRows<D, kEights>::put(to, kUnit, kUnit / 16); }

 private:
  uint32_t zeros[4];
  float slope[kEights][2], base[kEights][kKnowsSums ? D / 32 : 1][kBases];  // base: of each block -8 times the sum of its queries

  // The row that this lane gives a matrix of codes: a chunk of a token of the 16 from 16 * j on. Matrices: tokens 0 .. 7 and 8 .. 15 of block
  // 2 * two, then of the next.
  __device__ static uint32_t matrix_place(int j, int two) {
    const int lane = threadIdx.x % 32;
    return q4_place<D>(16 * j + lane % 16, 2 * two + lane / 16);
  }
  // Scores of the reference: of both products the first eight rows are its even dimensions, the last its odd ones.
  __device__ void begin_scores(const char* reference) {
    float product[kEights][2][4] = {};
#pragma unroll
    for (int b = 0; b < D / 32; ++b) {
      const uint4 eight = *reinterpret_cast<const uint4*>(reference + (b * 32 + threadIdx.x % 4 * 8) * 2);
      const uint32_t rows[4] = {low_halves(eight.x, eight.z), high_halves(eight.x, eight.z), low_halves(eight.y, eight.w), high_halves(eight.y, eight.w)};
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int n = 0; n < kEights; ++n) ptx::mma_bf16(product[n][i], rows, query[n][2 * b + i][0], query[n][2 * b + i][1]);
    }
#pragma unroll
    for (int n = 0; n < kEights; ++n)
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const float first = fmaf(product[n][1][2 + c], kOddLower, product[n][0][c] * kEvenLower);
#pragma unroll
        for (int j = 0; j < 2; ++j) score[j][n][c] = score[j][n][2 + c] = first;
      }
  }
};

}  // namespace

Status launch_attention_q4(const AttentionPlan& p, Stream stream) { return launch_code_attention<Q4Rows>(p, stream); }

}  // namespace longview::kernels
