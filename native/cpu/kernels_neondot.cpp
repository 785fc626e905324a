#define LONGVIEW_NEON  // as kernels_neon.cpp, with products of four bytes at a time
#include "cpu/dot_int8.h"
#include "cpu/kernels_simd.h"

namespace longview::cpu {

constinit const Kernels kNeonDotKernels = float_kernels("neondot", "NEON with dot products", dequantize_row, dots_int8);

}  // namespace longview::cpu
