// The kernel library, found and opened at run time: the addon itself links nothing of CUDA.
#pragma once

#include <memory>
#include <string>

#include "kernels/api/library.h"

namespace longview {
class Backend;
struct GpuOptions;
}  // namespace longview

namespace longview::cuda {

struct Loaded {
  const kernels::Library* library = nullptr;  // null where there is none to use
  std::string why;                            // then, one sentence for people
};

// Opens longview_cuda.so beside this program or addon (or the file that LONGVIEW_CUDA_LIBRARY names), checks its version and
// why_not_device(). Once a process; later calls return the same.
const Loaded& load_library();

// Why there is no GPU that the library runs on, one sentence; empty where the first one opens and is new enough.
std::string why_not_device(const kernels::Library& library);

// Why the driver does not do, one sentence: whether its library can be opened, and the line in which the kernel's part tells its
// version, empty where it tells none.
std::string why_not_driver(bool has_library, const std::string& version_line);

// The backend on a table of one's own, which outlives it: load_library()'s with functions exchanged, for benches that time them.
std::unique_ptr<Backend> make_backend(const kernels::Library& library, const GpuOptions& options);

}  // namespace longview::cuda
