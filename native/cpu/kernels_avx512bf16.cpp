#include "cpu/dot_int8.h"
#include "cpu/gemm_bf16.h"
#include "cpu/kernels_simd.h"

namespace longview::cpu {

const Kernels kAvx512Bf16Kernels = {"avx512bf16", "AVX-512 BF16", gemm_f32,    gemm_bf16,    dequantize_simd, dot_int8, quantize_row, dot,
                                    convert_bf16, widen_pairs, widen_q8_pairs, widen_q8, transpose16, softmax_step, softmax_step_bf16, weigh_means, rms_norm,        silu_mul, add_rows};

}  // namespace longview::cpu
