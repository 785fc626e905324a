// Asking for memory ahead of its use.
#pragma once

#include <cstdint>

namespace longview::kernels::ptx {

// Brings the line of `global` to the second-level cache; the thread does not wait.
__device__ inline void prefetch(const void* global) { asm volatile("prefetch.global.L2 [%0];" ::"l"(global)); }
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
// The same of `bytes` (a multiple of 16) by the copy engine.
__device__ inline void prefetch_bulk(const void* global, uint32_t bytes) { asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(global), "r"(bytes) : "memory"); }
#endif

}  // namespace longview::kernels::ptx
