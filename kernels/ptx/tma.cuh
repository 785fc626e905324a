// The tensor copy engine of sm_90.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace longview::kernels::ptx {

// Copies the box at (column, row) to shared memory and counts its bytes on the barrier; zeros come from outside the matrix.
__device__ inline void tma_load_2d(uint32_t shared, const CUtensorMap* map, int32_t column, int32_t row, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(shared), "l"(map),
               "r"(column), "r"(row), "r"(barrier)
               : "memory");
}
// Copies `bytes` (a multiple of 16) as they lie.
__device__ inline void bulk_load(uint32_t shared, const void* global, uint32_t bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared), "l"(global), "r"(bytes), "r"(barrier)
               : "memory");
}
// Makes this thread's ordinary writes to shared memory known to the tensor cores and the copy engine.
__device__ inline void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ inline void tma_prefetch(const CUtensorMap* map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

}  // namespace longview::kernels::ptx
