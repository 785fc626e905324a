// The kernel library, found and opened at run time: the addon itself links nothing of CUDA.
#pragma once

#include <string>

#include "kernels/api/library.h"

namespace longview::cuda {

struct Loaded {
  const kernels::Library* library = nullptr;  // null where there is none to use
  std::string why;                            // then, one sentence for people
};

// Opens longview_cuda.so beside this program or addon (or the file that LONGVIEW_CUDA_LIBRARY names), checks its version and
// that a driver answers with at least one device. Once a process; later calls return the same.
const Loaded& load_library();

}  // namespace longview::cuda
