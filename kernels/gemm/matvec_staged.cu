// Few rows of x against quantised weights whose rows begin at multiples of 16 bytes, blocks however do not: each warp brings its part of a tile through
// a ring of its own in shared memory, 256 elements of the 16 rows at a time, since codes are too small to be fetched one thread at a time.
#include "kernels/common/launch.cuh"
#include "kernels/gemm/matvec.cuh"
#include "kernels/gemm/matvec_codes.cuh"
#include "kernels/ptx/cp_async.cuh"

namespace longview::kernels {
namespace {

constexpr int kGroups = 8;            // of 32 elements, brought at a time
constexpr int kRingBytes = 5 << 10;  // of a warp: the multiprocessor's cache should still hold x
// Of a multiprocessor: two scales a group ask for more registers.
constexpr int blocks_of(WeightType type) { return in_quarters(type) ? 2 : 3; }

template <WeightType kType>
struct Ring {
  static constexpr int kPartBytes = static_cast<int>(row_bytes(kType, kGroups * kGroup));
  // Copies of 16 bytes of a row: a part may begin and end within one.
  static constexpr int kCopies = kPartBytes % 16 == 0 ? kPartBytes / 16 : kPartBytes / 16 + 2;
  static constexpr int kPitch = (kCopies | 1) * 16;  // an odd number of them: eight rows lie in different banks
  static constexpr int kStageBytes = kMatvecTile * kPitch;
  static constexpr int kStages = kRingBytes / kStageBytes;
  static constexpr int kBytes = kMatvecWarps * kStages * kStageBytes;
  static_assert(kStages >= 1);
};

// add_group over `count` groups from the beginning of a part, which lies kOdd bytes behind a multiple of four: known here, so that words are
// joined without asking. x: of this thread's row.
template <WeightType kType, int kOdd>
__device__ inline void add_part(float (&sum)[4], const uint8_t* upper, const uint2 (&x)[kGroups][2], int part, int count) {
#pragma unroll
  for (int s = 0; s < kGroups; ++s) {
    if (s >= count) break;
    add_group<kType, kOdd>(sum, upper, upper + 8 * Ring<kType>::kPitch, s, part, x[s]);
  }
}

template <WeightType kType>
__global__ void __launch_bounds__(kMatvecWarps * 32, blocks_of(kType)) matvec_staged_kernel(const MatvecParams p) {
  using Parts = Ring<kType>;
  extern __shared__ __align__(128) uint8_t shared[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = lane / 4, part = lane % 4;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kMatvecTile;
  const int groups = static_cast<int>(p.k / kGroup), parts = (groups + kGroups - 1) / kGroups, row_bytes = static_cast<int>(p.row_bytes);
  const uint8_t* ring = shared + warp * Parts::kStages * Parts::kStageBytes;

  // Two lanes a row.
  const uint8_t* from = p.weight_row(first + lane / 2) + lane % 2 * 16;
  const uint32_t to = ptx::shared_address(ring) + lane / 2 * Parts::kPitch + lane % 2 * 16;
  const auto copy = [&](int index, int stage) {
    if (index < parts) {
      const int begin = index * Parts::kPartBytes / 16 * 16, left = min((index + 1) * Parts::kPartBytes, row_bytes) - begin - lane % 2 * 16;
#pragma unroll
      for (int i = 0; i < (Parts::kCopies + 1) / 2; ++i)
        if (32 * i < left) ptx::cp_async_16(to + stage * Parts::kStageBytes + 32 * i, from + begin + 32 * i, true);
    }
    ptx::cp_async_commit();
  };
#pragma unroll
  for (int i = 0; i < Parts::kStages; ++i) copy(warp + i * kMatvecWarps, i);

  const auto* x = reinterpret_cast<const uint2*>(p.x_row(row)) + part;
  float sum[4] = {};
  int stage = 0;
  for (int index = warp; index < parts; index += kMatvecWarps) {
    const int count = min(kGroups, groups - index * kGroups);
    const uint2* from_x = x + int64_t{index} * kGroups * 8;
    uint2 seen[kGroups][2];
#pragma unroll
    for (int s = 0; s < kGroups; ++s) {
      if (s >= count) break;
      seen[s][0] = __ldg(from_x + 8 * s), seen[s][1] = __ldg(from_x + 8 * s + 4);
    }
    ptx::cp_async_wait<Parts::kStages - 1>();
    __syncwarp();
    const int odd = index * Parts::kPartBytes % 16;
    const uint8_t* upper = ring + stage * Parts::kStageBytes + row * Parts::kPitch + odd;
    if (Parts::kPartBytes % 4 == 0 || odd % 4 == 0) add_part<kType, 0>(sum, upper, seen, part, count);
    else add_part<kType, 2>(sum, upper, seen, part, count);
    __syncwarp();
    copy(index + Parts::kStages * kMatvecWarps, stage);
    if (++stage == Parts::kStages) stage = 0;
  }
  store_tile<kType>(p, first, sum);
}

template <WeightType kType>
Status launch(const MatvecParams& params, Stream stream) {
  if (const Status error = allow_shared(matvec_staged_kernel<kType>, Ring<kType>::kBytes)) return error;
  matvec_staged_kernel<kType><<<static_cast<unsigned>(ceil_div(params.n, kMatvecTile)), kMatvecWarps * 32, Ring<kType>::kBytes, cuda(stream)>>>(params);
  return launched();
}

}  // namespace

Status launch_matvec_staged(const MatvecParams& params, WeightType type, Stream stream) {
  if (params.row_bytes > kLargestGrid / 2) return kUnsupportedType;
  Status status = kUnsupportedType;
  for_type(type, [&]<WeightType kType>() {
    if constexpr (met_in_groups(kType)) status = launch<kType>(params, stream);
  });
  return status;
}

}  // namespace longview::kernels
