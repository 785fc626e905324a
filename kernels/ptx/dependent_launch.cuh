// Overlap of a kernel's beginning with the end of the one before it (sm_90): a kernel that was launched as dependent may
// start early, and must wait before it touches what the other writes. No-ops elsewhere.
#pragma once

namespace longview::kernels::ptx {

// Lets the next kernel start, where it was launched as dependent.
__device__ inline void start_dependents() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Waits until the kernels before this one are over.
__device__ inline void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace longview::kernels::ptx
