// The largest of many values, by a block of threads: digits of eight bits of the cut, the highest first.
#pragma once

#include <cstdint>

namespace longview::kernels {

// Grows with x, for all floats that are numbers.
__device__ inline uint32_t ordered_bits(float x) {
  const uint32_t bits = __float_as_uint(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// A value is among the largest when it is above `key`, or equal to it and not behind `index`: among equals the first.
struct Cut {
  uint32_t key;
  int index;
  __device__ bool keeps(uint32_t value, int i) const { return value > key || (value == key && i <= index); }
};

// The cut that keeps `count` of value(0) .. value(n - 1). `histogram`: 256 ints in shared memory. Called by all threads.
template <typename Value>
__device__ Cut largest_cut(Value value, int n, int count, int* histogram) {
  constexpr int kAll = 0x7fffffff;
  if (count <= 0) return {0xffffffffu, -1};
  if (count >= n) return {0, kAll};
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  uint32_t key = 0;
  int left = count, equal = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = thread; i < 256; i += threads) histogram[i] = 0;
    __syncthreads();
    for (int i = thread; i < n; i += threads) {
      const uint32_t x = value(i);
      if (shift == 24 || x >> (shift + 8) == key >> (shift + 8)) atomicAdd(&histogram[x >> shift & 255], 1);
    }
    __syncthreads();
    int digit = 255;
    while (left > histogram[digit]) left -= histogram[digit--];
    equal = histogram[digit];
    key |= static_cast<uint32_t>(digit) << shift;
    __syncthreads();
  }
  if (left == equal) return {key, kAll};
  int low = 0, high = n - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (thread == 0) histogram[0] = 0;
    __syncthreads();
    int found = 0;
    for (int i = thread; i <= middle; i += threads) found += value(i) == key;
    if (found) atomicAdd(&histogram[0], found);
    __syncthreads();
    if (histogram[0] >= left) high = middle;
    else low = middle + 1;
    __syncthreads();
  }
  return {key, high};
}

}  // namespace longview::kernels
