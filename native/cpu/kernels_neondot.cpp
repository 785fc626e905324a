#define LONGVIEW_NEON  // as kernels_neon.cpp, with products of four bytes at a time
#include "cpu/dot_int8.h"
#include "cpu/kernels_simd.h"

namespace longview::cpu {

const Kernels kNeonDotKernels = {"neondot", "NEON with dot products", gemm_f32,       nullptr,  dequantize_row, dot_int8,     quantize_row, dot,
                                 to_bf16,   widen_pairs,              widen_q8_pairs, widen_q8, transpose16,    softmax_step, nullptr,      weigh_means, rms_norm, silu_mul, add_rows};

}  // namespace longview::cpu
