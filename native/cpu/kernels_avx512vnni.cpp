#include "cpu/dot_int8.h"
#include "cpu/gemm_int16.h"
#include "cpu/kernels_simd.h"

namespace longview::cpu {

constinit const Kernels kAvx512Kernels = with_int16_products(float_kernels("avx512", "AVX-512 VNNI", dequantize_simd, dots_int8));

}  // namespace longview::cpu
