#include "cpu/kernels_simd.h"
#include "model/quant_formats.h"

namespace longview::cpu {

const Kernels kScalarKernels = {"scalar", "no vector instructions", gemm_f32,    nullptr,      dequantize_row, nullptr,  quantize_row, dot,
                                to_bf16,  widen_pairs, widen_q8_pairs, widen_q8, transpose16, softmax_step, nullptr, weigh_means, rms_norm,       silu_mul, add_rows};

}  // namespace longview::cpu
