// Values that are not finite. A row gives keys that it does not see a weight of 0, and 0 times an infinity or a NaN is NaN. In the place of
// such a V lie zeros, behind a K that is NaN: only rows that see it become NaN. native/cpu/cpu_backend.cpp does the same.
#pragma once

#include <cmath>
#include <cstdint>

namespace longview::kernels {

// Beyond this a value counts as one: the sum of a page's stays finite, in bf16 too.
constexpr float kFault = 0x1p120f;

// Not 0 where one of two bf16, or of eight, is a fault: the sum carries into the sign's bit from the bits of kFault on.
constexpr uint32_t kMagnitudes = 0x7fff7fff, kToSigns = 0x04800480, kSigns = 0x80008000;
__device__ inline uint32_t faults_of(uint32_t pair) { return ((pair & kMagnitudes) + kToSigns) & kSigns; }
__device__ inline uint32_t faults_of(uint4 words) { return faults_of(words.x) | faults_of(words.y) | faults_of(words.z) | faults_of(words.w); }

constexpr uint32_t kNotNumbers = 0x7fff7fff;  // two in bf16, as conversions make them

// Whether the head's V of which each lane of a warp has some dimensions holds a fault. The same in all lanes.
template <int kDims>
__device__ inline bool is_faulty(const float (&value)[kDims]) {
  bool fault = false;
#pragma unroll
  for (int i = 0; i < kDims; ++i) fault |= !(fabsf(value[i]) < kFault);
  return __any_sync(0xffffffffu, fault);
}

// A lane's dimensions of what lies in the place of a faulty head's K or V.
template <int kDims>
__device__ inline void hide_fault(bool is_value, float (&x)[kDims]) {
#pragma unroll
  for (int i = 0; i < kDims; ++i) x[i] = is_value ? 0.0f : NAN;
}

}  // namespace longview::kernels
