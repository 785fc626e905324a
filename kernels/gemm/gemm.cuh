// The GEMM kernels of the architectures, behind launch_gemm, which has checked the arguments.
#pragma once

#include "kernels/api/gemm.h"

namespace longview::kernels {

Status launch_gemm_sm80(const GemmArgs& args, Stream stream);
Status launch_gemm_sm90(const GemmArgs& args, int32_t multiprocessors, Stream stream);

}  // namespace longview::kernels
