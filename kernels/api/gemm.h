// Products with weights: out [M, N] = x [M, K] * weight [N, K]^T (+ bias [N]).
#pragma once

#include "kernels/api/status.h"

namespace longview::kernels {

struct GemmArgs {
  const void* x;       // bf16 [M, K], aligned to 16 bytes; kE4M3 in launch_gemm where the weight is
  const void* weight;  // [N, K] of `type`, aligned to 16 bytes
  WeightType type;
  const float* bias;  // [N] or null
  void* out;          // [M, N] of `element`; aligned to 16 bytes in launch_gemm
  Element element;
  int64_t m, n, k;           // k is a multiple of 8, and of the weight's block
  int32_t architecture = 0;  // 80: the kernels of sm_80 on any device, for tests; 0: the device's best
  int32_t add = 0;           // not 0: out += ..., float32, without a bias; launch_gemm alone
  // Not null, in launch_gemm in bf16: rows come in tiles of kGroupRows, each of one group g = groups[tile], which has a matrix of its own, rows
  // g * n .. of `weight`. Tiles where g is negative are left out. Without bias and add.
  const int32_t* groups = nullptr;  // [M / kGroupRows]
  int64_t group_count = 1;
};
constexpr int64_t kGroupRows = 128;
// Tensor cores; weights in bf16, on sm_90 in kE4M3 too.
Status launch_gemm(const GemmArgs& args, Stream stream);
// Few rows of x (1 .. kMatvecRows): every weight is read once, quantised ones as they are stored.
constexpr int64_t kMatvecRows = 8;
Status launch_matvec(const GemmArgs& args, Stream stream);

// Shared memory that x takes in 8-bit codes.
constexpr int64_t codes_bytes(int64_t k) { return k + k / 16 * 4 + k / 32 * 4; }
constexpr int64_t kMostCodesBytes = 48 << 10;

// One row of x with several weights of one type in one launch: out[i] = x * weight[i]^T (+ bias[i]). Weights are read before the
// kernel in front of this one is over, where it was launched as a dependent. Quantised weights meet x
// in 8-bit codes with a scale for each 32; launch_matvec does the same with one row.
constexpr int32_t kMatvecParts = 3;
enum class MatvecResult : int32_t {
  kWrite,   // out[i] of `element`
  kAdd,     // out[i] += ..., float32
  kGated,  // two parts of the same n: out[0] = first * sigmoid(first * (linear + cubic * first^2)) * second, bf16; numbers of `curve`
};
struct MatvecPart {
  const void* weight;  // [n, K], aligned to 16 bytes
  const float* bias;   // [n] or null
  void* out;           // [n]
  int64_t n;           // a multiple of 4 but for the last part's
};
struct MatvecRowArgs {
  const void* x;  // bf16 [K], aligned to 16 bytes
  WeightType type;
  int64_t k;  // as of GemmArgs
  MatvecPart parts[kMatvecParts];
  int32_t count;
  MatvecResult result;
  Element element;
  // Not null: x is float32 instead, and normed first (launch_rms_norm) by these weights [K], in bf16; `normed` is room for it, and has it
  // afterwards where `keep` is not 0.
  const float* norm = nullptr;  // aligned to 16 bytes
  void* normed = nullptr;  // bf16 [K], aligned to 16 bytes; any content then
  float epsilon = 0;
  int32_t architecture = 0;  // 80: the kernel of sm_80 on any device, for tests; 0: the device's best
  int32_t keep = 0;
  GateCurve curve = {};
};
Status launch_matvec_row(const MatvecRowArgs& args, Stream stream);

// Quantised rows to bf16.
struct DequantizeArgs {
  const void* weight;  // aligned to 16 bytes
  WeightType type;     // not kE4M3
  void* out;           // bf16, aligned to 16 bytes
  int64_t count;       // elements: whole blocks
};
Status launch_dequantize(const DequantizeArgs& args, Stream stream);

}  // namespace longview::kernels
