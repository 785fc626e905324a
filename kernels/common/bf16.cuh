// bf16 pairs as they lie in registers.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace longview::kernels {

__device__ inline __nv_bfloat162 as_bf16(uint32_t two) { return reinterpret_cast<const __nv_bfloat162&>(two); }
__device__ inline uint32_t as_bits(__nv_bfloat162 two) { return reinterpret_cast<const uint32_t&>(two); }
__device__ inline uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ inline float2 unpack_bf16(uint32_t pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}

// Eight bf16 of a 16-byte load.
__device__ inline void unpack_bf16x8(uint4 words, float (&out)[8]) {
  const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = unpack_bf16(word[i]);
    out[2 * i] = pair.x;
    out[2 * i + 1] = pair.y;
  }
}

__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}
// Over four neighbouring threads, which have a row of a product's results together.
__device__ inline float quad_sum(float value) {
  value += __shfl_xor_sync(0xffffffffu, value, 1);
  return value + __shfl_xor_sync(0xffffffffu, value, 2);
}
__device__ inline float quad_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
  return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}
// Over the eight threads that have a column of a product's results together.
__device__ inline float column_sum(float value) {
#pragma unroll
  for (int step = 16; step > 2; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}
__device__ inline float column_max(float value) {
#pragma unroll
  for (int step = 16; step > 2; step /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
  return value;
}
__device__ inline float warp_max(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
  return value;
}

}  // namespace longview::kernels
