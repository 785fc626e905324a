#define LONGVIEW_NEON  // every aarch64 processor has it: this file asks for it, the scalar kernels do without
#include "cpu/kernels_simd.h"
#include "model/quant_formats.h"

namespace longview::cpu {

const Kernels kNeonKernels = {"neon",  "NEON",      gemm_f32,       nullptr,  dequantize_row, nullptr,      quantize_row, dot,
                              to_bf16, widen_pairs, widen_q8_pairs, widen_q8, transpose16,    softmax_step, nullptr,      weigh_means, rms_norm, silu_mul, add_rows};

}  // namespace longview::cpu
