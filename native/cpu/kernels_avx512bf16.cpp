#include "cpu/dot_int8.h"
#include "cpu/gemm_bf16.h"
#include "cpu/kernels_simd.h"

namespace longview::cpu {

constinit const Kernels kAvx512Bf16Kernels = with_bf16_products(float_kernels("avx512bf16", "AVX-512 BF16", dequantize_simd, dots_int8), gemm_bf16);

}  // namespace longview::cpu
