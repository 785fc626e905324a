// What every launcher returns, and the types that all of them share. Nothing here needs CUDA's headers.
#pragma once

#include <cstdint>

namespace longview::kernels {

// 0, a cudaError_t, or one of the negative codes below. Launchers check shapes and alignment and throw nothing.
using Status = int;
constexpr Status kOk = 0;
constexpr Status kInvalidShape = -1;      // a size or stride outside what the kernel takes
constexpr Status kInvalidAlignment = -2;  // a pointer not aligned to 16 bytes
constexpr Status kUnsupportedType = -3;   // a weight type without a kernel

using Stream = void*;  // cudaStream_t
using Event = void*;   // cudaEvent_t

// Element types of activations.
enum class Element : int32_t { kBFloat16, kFloat32 };

// What the gate of an FFN's two halves opens by: gate * sigmoid(gate * (linear + cubic * gate^2)).
struct GateCurve {
  float linear = 1, cubic = 0;  // SiLU
};

// Storage of weight matrices. Quantised values are GGUF's type numbers and block layouts. kE4M3 is ours: 8-bit floats, codes
// [rows, cols], behind them float32 scales [rows]; a value is its code times its row's scale. Activations that meet such weights
// on the tensor cores have the same form.
enum class WeightType : int32_t {
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kBFloat16 = 30,
  kMXFP4 = 39,
  kE4M3 = 100,
};

constexpr int64_t kPageTokens = 128;

// Columns of a matrix in e4m3: a multiple of the one, at most the other.
constexpr int64_t kE4M3ColumnStep = 32, kMostE4M3Columns = 32768;
constexpr int64_t e4m3_bytes(int64_t rows, int64_t cols) { return rows * cols + rows * 4; }

}  // namespace longview::kernels
