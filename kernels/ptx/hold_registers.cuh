// A kernel has as many registers as its code needs anywhere, also where it never comes by.
#pragma once

#include <cstdint>

namespace longview::kernels::ptx {

// Needs kCount registers at once.
template <int kCount>
__device__ inline void hold_registers() {
  uint32_t held[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("mov.u32 %0, %%clock;" : "=r"(held[i]));
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("st.shared.u32 [%0], %1;" ::"r"(i * 4), "r"(held[i]));
}

}  // namespace longview::kernels::ptx
