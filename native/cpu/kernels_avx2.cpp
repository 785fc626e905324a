#include "cpu/dot_int8.h"
#include "cpu/kernels_simd.h"

namespace longview::cpu {

constinit const Kernels kAvx2Kernels = float_kernels("avx2", "AVX2", dequantize_simd, dots_int8);

}  // namespace longview::cpu
