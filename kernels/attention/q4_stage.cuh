// How a step of q4 pages' keys and values lies in shared memory, and how it comes there.
#pragma once

#include "kernels/attention/code_tile.cuh"
#include "kernels/cache/q4.cuh"
#include "kernels/ptx/cp_async.cuh"
#include "kernels/ptx/shared.cuh"

namespace longview::kernels {

// Of 32 keys: codes [32, D / 2], scales [32, D / 32], the reference [D]; then of their values: codes and scales. In bytes.
template <int D>
constexpr uint32_t kQ4CodeBytes = kStepKeys * D / 2;
template <int D>
constexpr uint32_t kQ4ScaleBytes = kStepKeys * D / kQ8Block * 2;
template <int D>
constexpr uint32_t kQ4ReferenceBytes = D * 2;
template <int D>
constexpr uint32_t kQ4KeyBytes = kQ4CodeBytes<D> + kQ4ScaleBytes<D> + kQ4ReferenceBytes<D>;
template <int D>
constexpr uint32_t kQ4StepBytes = kQ4KeyBytes<D> + kQ4CodeBytes<D> + kQ4ScaleBytes<D>;

// Where 32 codes of a token lie: those of eight tokens that follow each other are in different banks.
template <int D>
__device__ inline uint32_t q4_place(int token, int chunk) {
  return static_cast<uint32_t>(token * (D / 2) + (chunk ^ (D == 256 ? token % 8 : D == 128 ? token / 2 % 4 : token / 4 % 2)) * 16);
}

// Start copying tokens first .. first + 31. `block`: the head's K block of the page, V behind it. Their codes of K (b 0) or V, kAtOnce chunks of a thread
// without a branch between them.
template <int D, int kAtOnce>
__device__ inline void load_q4_codes(uint32_t to, const char* block, int first, int b) {
  constexpr int kChunks = D / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const char* codes = block + b * page_block_bytes(PageFormat::kQ4, D) + first * (D / 2) + lane * 16;
#pragma unroll kAtOnce
  for (int i = 0; i < static_cast<int>(kQ4CodeBytes<D>) / 512; ++i)
    ptx::cp_async_16(to + b * kQ4KeyBytes<D> + q4_place<D>((lane + 32 * i) / kChunks, lane % kChunks), codes + i * 512, true);
}
// 16 bytes of what else they have: scales of K (part 0), of V (1), or the page's reference (2).
template <int D>
constexpr int kQ4PartChunks = static_cast<int>(kQ4ScaleBytes<D>) / 16;
static_assert(kQ4ScaleBytes<64> == kQ4ReferenceBytes<64> && kQ4ScaleBytes<256> == kQ4ReferenceBytes<256> && kQ4PartChunks<256> == 32);
template <int D>
__device__ inline void load_q4_rest(uint32_t to, const char* block, int first, int part, int chunk) {
  const bool is_value = part == 1, is_reference = part == 2;
  const char* from = block + is_value * page_block_bytes(PageFormat::kQ4, D) + (is_reference ? q4_reference(D) : kPageTokens * D / 2 + first * (D / kQ8Block * 2));
  ptx::cp_async_16(to + is_value * kQ4KeyBytes<D> + kQ4CodeBytes<D> + is_reference * kQ4ScaleBytes<D> + chunk * 16, from + chunk * 16, true);
}

// Makes a token's scales zeros. `stage`, a shared address, holds either's.
template <int D>
__device__ inline void clear_q4_scales(uint32_t stage, int token) {
  const uint32_t to = stage + kQ4CodeBytes<D> + token * (D / 16);
  if constexpr (D == 256) ptx::store_shared(to, float4{});
  else if constexpr (D == 128) ptx::store_shared(to, float2{});
  else ptx::store_shared(to, 0.0f);
}

}  // namespace longview::kernels
