// What launchers share.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/api/status.h"

namespace longview::kernels {

constexpr int64_t kLargestGrid = 2147483647;

inline cudaStream_t cuda(Stream stream) { return static_cast<cudaStream_t>(stream); }
inline Status launched() { return static_cast<Status>(cudaGetLastError()); }
inline bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }
__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace longview::kernels
