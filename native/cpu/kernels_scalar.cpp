#include "cpu/kernels_simd.h"
#include "model/quant_formats.h"

namespace longview::cpu {

constinit const Kernels kScalarKernels = float_kernels("scalar", "no vector instructions", dequantize_row);

}  // namespace longview::cpu
