// Asking for memory ahead of its use.
#pragma once

namespace longview::kernels::ptx {

// Brings the line of `global` to the second-level cache; the thread does not wait.
__device__ inline void prefetch(const void* global) { asm volatile("prefetch.global.L2 [%0];" ::"l"(global)); }

}  // namespace longview::kernels::ptx
