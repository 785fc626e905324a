// The inner loops of the CPU backend, one table an instruction set. cpu_features.cpp chooses; everything above
// the table (blocking, threads, memory) is shared.
//
// Layouts: a "pair matrix" [k/2][n] of uint32 holds bf16 B[k, n] with rows 2i (low half) and 2i + 1 (high
// half) together: what vdpbf16ps and AMX's tdpbf16ps read. K pages and V pages are stored so, and weight panels
// are packed so. Leading dimensions count elements of their matrix.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/tensor.h"

namespace longview::cpu {

constexpr int64_t kPanel = 32;  // rows of a weight that are packed together, and columns of a block of one

constexpr int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// Rows of a stored weight: `rows` of them, `cols` values each, `stride` bytes apart.
struct WeightRows {
  DType type;
  const std::byte* data;
  int64_t stride, rows, cols;
};

// Vectors of few tokens, as matrix-vector products read them.
struct FewTokens {
  const float* x;  // [tokens, cols]
  int64_t tokens, cols;
  // The same in blocks of 32: codes [tokens, cols], scale and sum of the codes by block [tokens, cols / 32].
  const int8_t* codes;
  const float* scales;
  const int32_t* sums;
};

// One page of K and V under a block of query rows. A row is a head at a position; its scores are in log2 units
// (1/sqrt(d) and log2 e are folded into the queries).
struct PageBlock {
  int64_t rows, head_dim, width;  // width: columns of V, head_dim rounded up to 16
  int64_t tokens;                 // of the page that the last row sees; what lies behind them has finite V
  int64_t score_tokens;           // tokens rounded up to 32: columns of the products
  const int32_t* seen;            // [rows]: tokens that each row sees, at most `tokens`; null: all see all
  const std::byte *keys, *values;
  bool bf16;              // K and V are pair matrices, else float32
  const std::byte* next;  // K of the page after, to be fetched ahead; may be null
  // State of the online softmax, [rows]: maximum, sum of weights, output [rows, width] so far.
  float *maximum, *sum, *output;
};

struct Kernels {
  const char* isa;
  const char* title;  // for people

  // --- products: C[m, n] = A[m, k] B[k, n], or += . n is a multiple of 16.
  void (*gemm_f32)(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
                   float* c, int64_t ldc, bool accumulate);
  // bf16 A and a pair matrix B; k even; float32 accumulation. Null where the machine has no bf16 products.
  void (*gemm_bf16)(int64_t m, int64_t n, int64_t k, const uint16_t* a, int64_t lda, const uint32_t* b,
                    int64_t ldb, float* c, int64_t ldc, bool accumulate);

  // --- weights
  // dequantize_row of quant_formats.h, bit for bit.
  void (*dequantize)(DType type, const std::byte* source, float* destination, int64_t n);
  // Up to kPanel rows as a matrix [cols rounded up to kPanel, kPanel] of floats, or as a pair matrix; zero where
  // there is no weight. pack_bf16 is null where gemm_bf16 is.
  void (*pack_f32)(const WeightRows& rows, float* panel);
  void (*pack_bf16)(const WeightRows& rows, uint32_t* panel);
  // out[t * ldo + row] = dot of a row with token t.
  void (*dot_f32)(const WeightRows& rows, const FewTokens& x, float* out, int64_t ldo);
  // The same in 8-bit integers, for types with blocks; null where there is no such path.
  void (*dot_int8)(const WeightRows& rows, const FewTokens& x, float* out, int64_t ldo);
  // n values as FewTokens' codes, scales and sums.
  void (*quantize)(const float* x, int8_t* codes, float* scales, int32_t* sums, int64_t n);

  // --- attention
  // At most kFewRows query rows [rows, head_dim] in float32 arithmetic; `scores` is scratch [rows, 128].
  void (*attend_few)(const PageBlock& page, const float* queries, float* scores);
  // scores [rows, ld] of a page to weights of the online softmax, in place; rescales the output where a maximum
  // grows. The page's rows that are masked get weight 0.
  void (*softmax)(const PageBlock& page, float* scores, int64_t ld);
  // The same with weights in bf16 [rows, ld]; spoils the scores. Null where gemm_bf16 is.
  void (*softmax_bf16)(const PageBlock& page, float* scores, uint16_t* weights, int64_t ld);
  // Stores 16 tokens of K, given as bf16 rows [16, ld], into the columns of a pair matrix [d/2][ldo].
  void (*transpose16)(const uint32_t* in, int64_t ldi, int64_t cols, uint32_t* out, int64_t ldo);

  // --- vectors
  void (*to_bf16)(const float* source, uint16_t* destination, int64_t n, float scale);
  // out[i] = a[i] (low half), b[i] (high half).
  void (*interleave)(const uint16_t* a, const uint16_t* b, uint32_t* out, int64_t n);
  // y = x / sqrt(mean(x^2) + epsilon) * weight.
  void (*rms_norm)(const float* x, const float* weight, float epsilon, float* y, int64_t n);
  // RoPE of one head: pairs (i, i + half), or neighbours; cosine and sine as rope.h lays them out.
  void (*rotate)(float* head, const float* cosine, const float* sine, int64_t half, bool neighbours);
  void (*silu_mul)(float* gate, const float* up, int64_t n);
  void (*add)(float* x, const float* y, int64_t n);
};

constexpr int64_t kFewRows = 8;

extern const Kernels kScalarKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512Bf16Kernels;
extern const Kernels kAmxKernels;

}  // namespace longview::cpu
