#define LONGVIEW_NEON  // every aarch64 processor has it: this file asks for it, the scalar kernels do without
#include "cpu/kernels_simd.h"
#include "model/quant_formats.h"

namespace longview::cpu {

constinit const Kernels kNeonKernels = float_kernels("neon", "NEON", dequantize_row);

}  // namespace longview::cpu
