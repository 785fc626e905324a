// What launchers share.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "kernels/api/status.h"

namespace longview::kernels {

constexpr int64_t kLargestGrid = 2147483647;

inline cudaStream_t cuda(Stream stream) { return static_cast<cudaStream_t>(stream); }
inline Status launched() { return static_cast<Status>(cudaGetLastError()); }
inline bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// Lets a kernel ask for so much shared memory.
template <typename... Params>
Status allow_shared(void (*kernel)(Params...), int64_t bytes) {
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  return launched();
}

inline Status clear(void* at, size_t bytes, Stream stream) {
  cudaMemsetAsync(at, 0, bytes, cuda(stream));
  return launched();
}

// Of the calling thread's device; 0 where that cannot be asked.
inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&value, attribute, device);
  return value;
}

// Whether the kernels of sm_90a run: on that device, unless a test asks for others.
inline bool on_sm90(int32_t asked) { return device_attribute(cudaDevAttrComputeCapabilityMajor) == 9 && asked != 80; }

// Launches a kernel that may begin while the one before it ends: it calls ptx::wait_for_previous() before it touches what others
// write. Code of before sm_90 cannot wait and runs behind the other, also on newer devices that it was made for from PTX.
// Multiprocessors are divided into cache and shared memory alike for all of them: they cannot be divided anew while a kernel is there,
// so that the next one would wait for its end.
template <typename... Params, typename... Args>
Status launch_dependent(void (*kernel)(Params...), dim3 grid, unsigned threads, size_t shared_bytes, Stream stream, Args&&... args) {
  static const bool waits = [&] {
    cudaFuncAttributes code{};
    cudaFuncGetAttributes(&code, kernel);
    return code.ptxVersion >= 90;  // for all kernels alike
  }();
  cudaLaunchAttribute attributes[2]{};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
  attributes[1].val.sharedMemCarveout = cudaSharedmemCarveoutMaxShared;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = cuda(stream);
  config.attrs = attributes;
  config.numAttrs = waits ? 2 : 0;
  cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...);
  return launched();
}

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace longview::kernels
