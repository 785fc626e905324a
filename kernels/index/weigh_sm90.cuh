// Weighs pages on sm_90: softmax weights of a tile's 128 queries on the mean keys of pages. Each warpgroup takes 64 means at a time
// for itself, through stages of its own, so that one computes exponentials while others multiply. They multiply in turn, or all would
// share the tensor cores and come to their exponentials together (H100: 3 % at 131,072 tokens, nothing at a million). Means are the
// rows of a product: a thread holds sums of two means and of 32 queries, and adds them up without a word to its neighbours.
#pragma once

#include "kernels/common/bf16.cuh"
#include "kernels/index/row_sums.cuh"
#include "kernels/ptx/mbarrier.cuh"
#include "kernels/ptx/tma.cuh"
#include "kernels/ptx/wgmma.cuh"

namespace longview::kernels {

constexpr int kPartMeans = 64;

template <int D, int kWarpgroups>
struct WeighShared {
  static constexpr int kStages = D <= 128 ? 2 : 1;  // of each warpgroup; of heads of 256 its next means come while the others multiply
  static constexpr uint32_t kStageBytes = kPartMeans * D * 2;
  static constexpr uint32_t kFirstStage = kTileRows * D * 2;  // behind the queries
  static constexpr uint32_t kOffsets = kFirstStage + kWarpgroups * kStages * kStageBytes;
  static constexpr uint32_t kSums = kOffsets + kTileRows * 4;
  static constexpr uint32_t kBytes = kSums + kWarpgroups * 4 * kTileRows * 4;
};

// Lives through a tile, in all threads of its block.
template <int D, int kWarpgroups>
class Weigher {
  using Shared = WeighShared<D, kWarpgroups>;

 public:
  // `base`: Shared::kBytes of shared memory at a multiple of 1,024 bytes. Begins to load the tile's queries.
  __device__ Weigher(const SparsePlan& p, const Tile& t, char* base)
      : p_(p), t_(t), base_(base), queries_(ptx::shared_address(base)), stages_(queries_ + Shared::kFirstStage + warpgroup() * Shared::kStages * Shared::kStageBytes),
        offsets_(reinterpret_cast<float*>(base + Shared::kOffsets)), sums_(reinterpret_cast<float*>(base + Shared::kSums)) {
    __shared__ uint64_t barriers[kWarpgroups * Shared::kStages];
    full_ = ptx::shared_address(barriers) + warpgroup() * Shared::kStages * 8;
    if (threadIdx.x == 0) {
      for (int i = 0; i < kWarpgroups * Shared::kStages; ++i) ptx::mbarrier_init(ptx::shared_address(barriers) + 8 * i, 1);
      ptx::fence_mbarrier_init();
    }
    load_queries<D>(p, t, queries_, threadIdx.x, kWarpgroups * 128);
    ptx::cp_async_commit();
    __syncthreads();
  }
  // To be called before the first walk.
  __device__ void wait_queries() {
    ptx::cp_async_wait<0>();
    ptx::fence_proxy_async();
    __syncthreads();
  }

  // Announces a walk over `count` parts of 64 means, the i-th of which is part_of(i).
  template <typename PartOf>
  __device__ void begin(int count, PartOf part_of) {
    next_ = warpgroup();
    count_ = count;
    if (threadIdx.x % 128 == 0)
      for (int i = 0; i < Shared::kStages; ++i) bring(turn_ + i, next_ + i * kWarpgroups, part_of);
  }
  // Walks on to the `end`-th: take(i, part) with the scores of this warpgroup's parts.
  template <typename PartOf, typename Take>
  __device__ void walk(int end, PartOf part_of, Take take) {
    for (; next_ < end; next_ += kWarpgroups, ++turn_) {
      ptx::mbarrier_wait(full_ + 8 * (turn_ % Shared::kStages), turn_ / Shared::kStages & 1);
      multiply(stages_ + turn_ % Shared::kStages * Shared::kStageBytes, next_ > 0, next_ + 1 < count_);
      sync_warpgroup();
      if (threadIdx.x % 128 == 0) bring(turn_ + Shared::kStages, next_ + Shared::kStages * kWarpgroups, part_of);
      take(next_, part_of(next_));
    }
  }
  // take(first) with the scores of the means of pages list[first] and on, of which those of pages from `count` on are zeros.
  template <typename Take>
  __device__ void walk_list(const uint16_t* list, int count, Take take) {
    const int part_pages = kPartMeans >> p_.mean_shift;
    for (int first = warpgroup() * part_pages; first < count; first += kWarpgroups * part_pages) {
      for (int item = threadIdx.x % 128; item < kPartMeans * (D / 8); item += 128) {
        const int row = item / (D / 8), chunk = item % (D / 8), at = first + (row >> p_.mean_shift);
        const bool valid = at < count;
        const int mean = valid ? (list[at] << p_.mean_shift) + row % (1 << p_.mean_shift) : 0;
        const auto* from = weighed_block<D>(p_, mean / kBlockKeys, t_.group.kv_head) + page_offset(mean % kBlockKeys, chunk * 8);
        ptx::cp_async_16(stages_ + chunk / 8 * (kPartMeans * 128) + row * 128 + ((chunk % 8 ^ row % 8) << 4), from, valid);
      }
      ptx::cp_async_commit();
      ptx::cp_async_wait<0>();
      ptx::fence_proxy_async();
      sync_warpgroup();
      multiply(stages_, false, false);
      sync_warpgroup();
      take(first);
    }
  }

  // Means of the part that lie at or behind `end` weigh nothing.
  __device__ void hide_behind(int part, int end) {
    if ((part + 1) * kPartMeans <= end) return;
#pragma unroll
    for (int i = 0; i < 64; ++i)
      if (part * kPartMeans + mean() + i / 2 % 2 * 8 >= end) score_[i] = -INFINITY;
  }
  // Adds the weights, `factor` times, to what each query has, and stores each page's sum: to(i), a pointer or null, is where that of
  // the part's page i goes.
  template <typename To>
  __device__ void weigh(float factor, To to) {
    float sum[2] = {0, 0};
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const float2 offset = *reinterpret_cast<const float2*>(offsets_ + j * 8 + threadIdx.x % 4 * 2);
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const float x = ptx::exp2(fmaf(score_[4 * j + c], p_.scale, c ? offset.y : offset.x)), y = ptx::exp2(fmaf(score_[4 * j + 2 + c], p_.scale, c ? offset.y : offset.x));
        sum[0] += x;
        sum[1] += y;
        query_[2 * j + c] = fmaf(factor, x + y, query_[2 * j + c]);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] = quad_sum(sum[r]);
      for (int i = 0; i < p_.mean_shift; ++i) sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 4 << i);
      if (threadIdx.x % (4 << p_.mean_shift) == 0)
        if (float* at = to((mean() + 8 * r) >> p_.mean_shift)) *at = sum[r];
    }
  }
  // Each query's highest score instead.
  __device__ void raise() {
#pragma unroll
    for (int i = 0; i < 32; ++i) query_[i] = fmaxf(query_[i], fmaxf(score_[i / 2 * 4 + i % 2], score_[i / 2 * 4 + 2 + i % 2]));
  }

  __device__ void clear(float value = 0) {
#pragma unroll
    for (int i = 0; i < 32; ++i) query_[i] = value;
  }
  // Joins what the threads have of the queries, and gives query threadIdx.x to each of the first 128. Called by all threads, which
  // have nothing afterwards.
  template <typename Combine>
  __device__ float join(Combine combine) {
    trade_halves(query_, combine);
    const int lane = threadIdx.x % 32, first = first_traded();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; ++i) sums_[threadIdx.x / 32 * kTileRows + (first + i) / 2 * 8 + lane % 4 * 2 + i % 2] = query_[i];
    __syncthreads();
    float value = threadIdx.x < kTileRows ? sums_[threadIdx.x] : 0;
    if (threadIdx.x < kTileRows)
      for (int warp = 1; warp < kWarpgroups * 4; ++warp) value = combine(value, sums_[warp * kTileRows + threadIdx.x]);
    clear();
    return value;
  }
  // What is added to the scaled scores of query threadIdx.x, of the first 128. To be read by all after a barrier.
  __device__ float& offset() { return offsets_[threadIdx.x]; }

  // The scaled score of query threadIdx.x, of the first 128, with the first mean.
  __device__ float first_score() const {
    const auto* mean = reinterpret_cast<const uint4*>(weighed_block<D>(p_, 0, t_.group.kv_head));
    float sum = 0;
#pragma unroll(D <= 128 ? D / 8 : 8)
    for (int chunk = 0; chunk < D / 8; ++chunk) {
      float q[8], k[8];
      unpack_bf16x8(*reinterpret_cast<const uint4*>(base_ + block_address(0, threadIdx.x, chunk)), q);
      unpack_bf16x8(mean[chunk / 8 * (kBlockKeys * 8) + chunk % 8], k);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum = fmaf(q[i], k[i], sum);
    }
    return sum * p_.scale;
  }

 private:
  // The shuffle tells the compiler that all threads of a warp have the same, so that addresses stay in uniform registers.
  __device__ static int warpgroup() { return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 128, 0); }
  // The first of the two means of a part whose scores this thread holds; the other is 8 on.
  __device__ static int mean() { return static_cast<int>(threadIdx.x) % 128 / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4; }
  __device__ static void sync_warpgroup() { asm volatile("bar.sync %0, 128;" ::"r"(warpgroup() + 1) : "memory"); }

  template <typename PartOf>
  __device__ void bring(uint32_t turn, int i, PartOf part_of) {
    if (i >= count_) return;
    const int part = part_of(i);
    const uint32_t full = full_ + 8 * (turn % Shared::kStages), to = stages_ + turn % Shared::kStages * Shared::kStageBytes;
    const auto* from = weighed_block<D>(p_, part / 2, t_.group.kv_head) + part % 2 * (kPartMeans * 64);
    ptx::mbarrier_arrive_expect(full, Shared::kStageBytes);
#pragma unroll
    for (int tile = 0; tile < D / 64; ++tile) ptx::bulk_load(to + tile * (kPartMeans * 128), from + tile * (kBlockKeys * 64), kPartMeans * 128, full);
  }
  // `after`: not before the warpgroup before this one is nearly done; `before`: the next one waits for this one.
  __device__ void multiply(uint32_t means, bool after, bool before) {
    constexpr int kSteps = D / 16, kLast = 2;  // steps that the next warpgroup's first may overlap
    const uint64_t rows = ptx::wgmma_descriptor(means), columns = ptx::wgmma_descriptor(queries_);
    if (after) asm volatile("bar.sync %0, 256;" ::"r"(kWarpgroups + 1 + warpgroup()) : "memory");
    ptx::wgmma_hold(score_);
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      ptx::wgmma_m64n128k16(score_, rows + i / 4 * (kPartMeans * 128 / 16) + i % 4 * 2, columns + i / 4 * (kTileRows * 128 / 16) + i % 4 * 2, i > 0);
      if (i == kSteps - kLast - 1 || i == kSteps - 1) ptx::wgmma_commit();
    }
    ptx::wgmma_wait<1>();
    if (before) asm volatile("bar.arrive %0, 256;" ::"r"(kWarpgroups + 1 + (warpgroup() + 1) % kWarpgroups) : "memory");
    ptx::wgmma_wait<0>();
    ptx::wgmma_hold(score_);
  }

  const SparsePlan& p_;
  const Tile& t_;
  const char* const base_;
  const uint32_t queries_, stages_;
  float *const offsets_, *const sums_;
  uint32_t full_, turn_ = 0;
  int next_ = 0, count_ = 0;
  float score_[64], query_[32] = {};
};

}  // namespace longview::kernels
