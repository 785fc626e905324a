// Which kernels this machine can run.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace longview::cpu {

// Best first; always ends with the scalar ones. Asks the system for AMX's tile state where the processor has it.
std::vector<const Kernels*> available_kernels();

// The processor's own name; "CPU" where it tells none.
std::string processor_name();

}  // namespace longview::cpu
