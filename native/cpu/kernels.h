// The inner loops of the CPU backend, one table an instruction set. cpu_features.cpp chooses; everything above the table
// (packing, tiling, threads) is shared.
//
// Layouts: a "pair matrix" [k/2][n] of uint32 holds bf16 B[k, n] with rows 2i (low half) and 2i + 1 (high half) together:
// what vdpbf16ps and AMX's tdpbf16ps read. K pages and V pages are stored so, and weight panels are packed so.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/gate_curve.h"
#include "base/tensor.h"

namespace longview::cpu {

// x as 16-bit codes (Kernels::quantize_row16), rows one after the other: codes [m, k], a scale and the sum of the codes per block of 32
// [m, k/32].
struct CodeRows {
  const int16_t* codes;
  const float* scales;
  const int32_t* sums;
};

// A quantised weight's rows as columns: codes [k/2][ld][2], scales and minimums [k/32][ld], with value = scale code + minimum; minimums is
// null where there are none. Codes are within -4,096 .. 4,096.
struct CodePanel {
  const int16_t* codes;
  const float* scales;
  const float* minimums;
  int64_t ld;
};

// The gated delta rule (Backend::delta_net) of 16 columns of a head's values.
struct DeltaRule {
  const float *q, *k;  // [tokens, d], rows ld apart
  const float* v;      // [tokens, 16], rows ld apart
  int64_t ld;
  const float *decay, *beta;  // [tokens], what is left of S and how much of what is new is written, gate_ld apart
  int64_t gate_ld, tokens, d;  // d is a multiple of 4, up to 128
  const float* before;         // S [d, 16], rows d apart, as is after, which may be before
  float* after;
  float* out;  // [tokens, 16], rows out_ld apart
  int64_t out_ld;
};

struct Kernels {
  const char* isa;
  const char* title;  // for people

  // C[m, n] = A[m, k] B[k, n], or += . n is a multiple of 16. Leading dimensions in elements.
  void (*gemm_f32)(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, bool accumulate);
  // The same with bf16 A and a pair matrix B; k even; float32 accumulation. Null where the machine has no bf16 products.
  void (*gemm_bf16)(int64_t m, int64_t n, int64_t k, const uint16_t* a, int64_t lda, const uint32_t* b, int64_t ldb, float* c, int64_t ldc, bool accumulate) = nullptr;

  // The same of codes, summed as integers over each block of 32, then scaled; k a multiple of 32. Null, as the two below, where the machine
  // has no products of 16-bit integers, or others that are faster.
  void (*gemm_int16)(int64_t m, int64_t n, int64_t k, const CodeRows& a, const CodePanel& b, float* c, int64_t ldc) = nullptr;
  // A quantised row of a weight: codes [n], scales and minimums [n/32]. Returns whether the type has minimums; else they say nothing.
  bool (*unpack_codes)(DType type, const std::byte* row, int16_t* codes, float* scales, float* minimums, int64_t n) = nullptr;
  // x in blocks of 32: codes within -8,191 .. 8,191, so that a block's products fit 32 bits, and the sums of the codes themselves; otherwise as quantize_row.
  void (*quantize_row16)(const float* x, int16_t* codes, float* scales, int32_t* sums, int64_t n) = nullptr;

  // dequantize_row of quant_formats.h, bit for bit.
  void (*dequantize)(DType type, const std::byte* source, float* destination, int64_t n);
  // out[t] = the dot product of one quantised row with row t of 8-bit activations (see quantize_row): x [tokens, n], scales and sums
  // [tokens, n/32]. Each is what it is alone. Null where there is no such path.
  void (*dots_int8)(DType type, const std::byte* row, const int8_t* x, const float* scales, const float* sums, int64_t n, int64_t tokens, float* out) = nullptr;
  // x in blocks of 32: int8 codes [n], a scale and the sum of what the codes stand for per block [n/32]. The scale of a block that holds an
  // infinity or a NaN is NaN.
  void (*quantize_row)(const float* x, int8_t* codes, float* scales, float* sums, int64_t n);

  float (*dot)(const float* a, const float* b, int64_t n);
  void (*to_bf16)(const float* source, uint16_t* destination, int64_t n, float scale);
  // Splits a pair matrix row-wise: out[2i][j], out[2i + 1][j] = in[i][j]. rows counts pairs.
  void (*widen_pairs)(const uint32_t* pairs, int64_t rows, int64_t cols, int64_t ld, float* out, int64_t ldo);
  // n pairs of int8 (low byte first), the first of pair j times even[j] plus base[0] and the second times odd[j] plus base[1]: as bf16 pairs,
  // rounded to nearest even, or as two rows of floats. Scales and bases are finite or quiet NaN.
  void (*widen_pairs_of_codes)(const int16_t* codes, const float* even, const float* odd, const float* base, int64_t n, uint32_t* out);
  void (*widen_codes)(const int16_t* codes, const float* even, const float* odd, const float* base, int64_t n, float* out_even, float* out_odd);
  // Two rows of n bytes of two 4-bit codes to such pairs, less 8: low[j] of the low bits of first[j] and second[j], high[j] of the high ones.
  void (*split_codes)(const uint8_t* first, const uint8_t* second, int64_t n, int16_t* low, int16_t* high);
  // out[j][i] = in[i][j] for 16 rows i and `cols` columns.
  void (*transpose16)(const uint32_t* in, int64_t ldi, int64_t cols, uint32_t* out, int64_t ldo);

  // One online-softmax step of a row of scores that are already in log2 units: returns the new maximum, multiplies `sum` and
  // output[d] by 2^(old - new), adds the row's weights to `sum`, and leaves the weights in place of the scores. The weight of a score that
  // is NaN is NaN; the maximum is that of the others.
  void (*softmax_step)(float* scores, int64_t n, float* maximum, float* sum, float* output, int64_t d);
  // The same with the weights in bf16, and the scores as they were. Null where gemm_bf16 is.
  void (*softmax_step_bf16)(const float* scores, int64_t n, float* maximum, float* sum, float* output, int64_t d, uint16_t* weights) = nullptr;
  // weights[n] of blocks relative to the heaviest, and returns their sum: a block's score, by its mean key and in log2 units, grows by
  // the spread of its keys times `gain`, but by `most` at most. n is a multiple of 16, one score at least is finite.
  float (*weigh_means)(const float* scores, const float* spreads, float gain, float most, int64_t n, float* weights);
  // y = x * scale / sqrt(mean(x^2) + epsilon) elementwise with `weight`.
  void (*rms_norm)(const float* x, const float* weight, float epsilon, float* y, int64_t n);
  // gate = gate * sigmoid(gate * (linear + cubic * gate^2)) * up.
  void (*gate_mul)(float* gate, const float* up, GateCurve curve, int64_t n);
  // x *= sigmoid(gate).
  void (*sigmoid_mul)(float* x, const float* gate, int64_t n);
  void (*delta_rule)(const DeltaRule& rule);
  void (*add)(float* x, const float* y, int64_t n);
};

extern const Kernels kScalarKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvxVnniKernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512Bf16Kernels;
extern const Kernels kAmxKernels;
extern const Kernels kNeonKernels;
extern const Kernels kNeonDotKernels;

}  // namespace longview::cpu
