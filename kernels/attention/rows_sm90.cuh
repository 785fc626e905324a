// What a warpgroup of sm_90 does with its 64 rows: scores against blocks of 128 keys (64 of heads of 256), online softmax, weighted values. Shared
// by dense and sparse attention, which differ in the blocks that they bring. Rows over bf16 are here, those over e4m3 in rows_e4m3_sm90.
#pragma once

#include "kernels/attention/hide.cuh"
#include "kernels/common/bf16.cuh"
#include "kernels/ptx/cp_async.cuh"
#include "kernels/ptx/exp2.cuh"
#include "kernels/ptx/mbarrier.cuh"
#include "kernels/ptx/tma.cuh"
#include "kernels/ptx/wgmma.cuh"

namespace longview::kernels {

constexpr int kRows = 128, kKeys = 128, kThreads = 384;
constexpr int kReaders = 8;  // warps that say that they are done with a stage
constexpr uint32_t kTileBytes = kKeys * 128;  // 64 dimensions of a page's block

// Stages of K and V in shared memory: barriers that say what has come and what has been read. The producer brings K of block number
// `index`, later V: K of the next block comes before V of this one, as its stage is free half a block earlier.
template <uint32_t kStageCount>
struct StageBarriers {
  static constexpr uint32_t kStages = kStageCount, kBiasBytes = kKeys * 4;  // biases: with K of stand-ins, a float each
  uint32_t key_full, key_empty, value_full, value_empty;

  __device__ explicit StageBarriers(uint32_t barriers) : key_full(barriers), key_empty(key_full + 8 * kStages), value_full(key_empty + 8 * kStages), value_empty(value_full + 8 * kStages) {}
  // By one thread, before all others use them.
  __device__ void init() const {
    for (uint32_t i = 0; i < kStages; ++i) {
      ptx::mbarrier_init(key_full + 8 * i, 1);
      ptx::mbarrier_init(value_full + 8 * i, 1);
      ptx::mbarrier_init(key_empty + 8 * i, kReaders);
      ptx::mbarrier_init(value_empty + 8 * i, kReaders);
    }
  }
  // Waits until the stage of a block's keys, and all that came with them, has been read.
  __device__ void wait_keys_read(uint32_t index) const { wait_read(key_empty, index); }

 protected:
  __device__ static void wait_read(uint32_t empty, uint32_t index) { ptx::mbarrier_wait(empty + 8 * (index % kStages), (index / kStages & 1) ^ 1); }  // passes at once in the first round
  // Waits until the block's stage has been read, and begins another `bytes` of it. Returns the barrier on which these arrive.
  __device__ static uint32_t reuse(uint32_t full, uint32_t empty, uint32_t index, uint32_t bytes) {
    const uint32_t barrier = full + 8 * (index % kStages);
    wait_read(empty, index);
    ptx::mbarrier_arrive_expect(barrier, bytes);
    return barrier;
  }
};

// Of pages in bf16: a stage has a block of keys, which is a page, or half of it where heads have 256 dimensions. Its tiles of 64 dimensions lie
// together, those of half a page are copied one by one.
template <int D>
struct KvStages : StageBarriers<2> {
  static constexpr int kBlockKeys = D <= 128 ? kKeys : kKeys / 2;
  static constexpr uint32_t kPageBlockBytes = kKeys * D * 2, kStageBytes = kBlockKeys * D * 2, kStageTileBytes = kBlockKeys * 128;
  static constexpr uint32_t kBytes = kStages * (2 * kStageBytes + kBiasBytes);
  uint32_t keys, values;

  __device__ KvStages(uint32_t shared, uint32_t barriers) : StageBarriers(barriers), keys(shared), values(shared + kStages * kStageBytes) {}
  __device__ uint32_t biases(uint32_t index) const { return values + kStages * kStageBytes + index % kStages * kBiasBytes; }
  // `from`: the block's first key, in the first tile.
  __device__ void bring_keys(uint32_t index, const void* from) const {
    const uint32_t full = reuse(key_full, key_empty, index, kStageBytes);
    bring(keys + index % kStages * kStageBytes, static_cast<const char*>(from), full);
  }
  // `from` is the block's K, V lies behind that of the page.
  __device__ void bring_values(uint32_t index, const void* from) const {
    const uint32_t full = reuse(value_full, value_empty, index, kStageBytes);
    bring(values + index % kStages * kStageBytes, static_cast<const char*>(from) + kPageBlockBytes, full);
  }

 private:
  __device__ static void bring(uint32_t to, const char* from, uint32_t full) {
    if constexpr (kBlockKeys == kKeys) {
      ptx::bulk_load(to, from, kStageBytes, full);
    } else {
#pragma unroll
      for (uint32_t i = 0; i < D / 64; ++i) ptx::bulk_load(to + i * kStageTileBytes, from + i * kTileBytes, kStageTileBytes, full);
    }
  }
};

// What a thread holds of rows warp * 16 + lane / 4 and + 8 of its warpgroup's 64 (ptx/wgmma.cuh).
template <int D, int kBlockKeys = kKeys>
struct RowState {
  float score[kBlockKeys / 2], out[D / 2], maximum[2], sum[2], factor[2];

  __device__ void begin() {
    maximum[0] = maximum[1] = -INFINITY;
    sum[0] = sum[1] = 0;
  }
  // This warp has read its block number `index` from the stage that `empty` stands for.
  template <class Stages>
  __device__ static void release(uint32_t empty, uint32_t index) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(empty + 8 * (index % Stages::kStages));
  }
  // Divides by the threads' sums and stores: where each row's D results go, null where there is no such row. The four threads of
  // a row trade pairs, so that each writes 16 bytes.
  __device__ void store(__nv_bfloat16* to0, __nv_bfloat16* to1, const float (&sums)[2]) {
    __nv_bfloat16* to[2] = {to0, to1};
    const int quarter = threadIdx.x % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float inverse = 1.0f / quad_sum(sums[r]);
#pragma unroll
      for (int j = 0; j < D / 8; j += 4) {
        uint32_t pair[4];  // of columns 8 (j + i) + 2 quarter
#pragma unroll
        for (int i = 0; i < 4; ++i) pair[i] = pack_bf16(out[4 * (j + i) + 2 * r] * inverse, out[4 * (j + i) + 2 * r + 1] * inverse);
        transpose(pair, quarter);  // now of columns 8 (j + quarter) + 2 i
        if (to[r]) *reinterpret_cast<uint4*>(to[r] + (j + quarter) * 8) = {pair[0], pair[1], pair[2], pair[3]};
      }
    }
  }

 private:
  // Thread q of four gives x[i] to thread i and gets its x[q].
  __device__ static void transpose(uint32_t (&x)[4], int q) {
#pragma unroll
    for (int step = 1; step < 4; step *= 2)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (i & step) continue;
        uint32_t &low = x[i], &high = x[i + step];
        const bool upper = q & step;
        const uint32_t got = __shfl_xor_sync(0xffffffffu, upper ? low : high, step);
        (upper ? low : high) = got;
      }
  }
};

template <int D>
struct RowsSm90 : RowState<D, KvStages<D>::kBlockKeys> {
  using Stages = KvStages<D>;
  using Row = RowState<D, KvStages<D>::kBlockKeys>;
  using Row::factor, Row::maximum, Row::out, Row::score, Row::sum;
  static constexpr int kBlockKeys = Stages::kBlockKeys;
  static constexpr uint32_t kBlockBytes = Stages::kPageBlockBytes, kWarpgroupBytes = 64 * D * 2, kQueryTileBytes = 64 * 128;  // of queries
  static constexpr float kMostAbove = 8;  // log2 of the largest weight: until then a new maximum need not become the row's, and earlier results stay as they are
  uint32_t weight[kBlockKeys / 16][4];

  // Starts copying a warpgroup's queries to tiles as a page's, [D / 64][64 rows][128 bytes]. `place(row)`: null where there is no such row.
  template <int kThreadCount, typename Place>
  __device__ static void load_queries(uint32_t to, Place place, int thread) {
    for (int item = thread; item < 64 * D / 8; item += kThreadCount) {
      const int row = item / (D / 8), chunk = item % (D / 8);
      const __nv_bfloat16* from = place(row);
      ptx::cp_async_16(to + chunk / 8 * kQueryTileBytes + row * 128 + (((chunk % 8) ^ (row % 8)) << 4), from ? from + chunk * 8 : nullptr, from != nullptr);
    }
    ptx::cp_async_commit();
  }
  __device__ static const void* means(const SparsePlan& p) { return p.means; }
  __device__ void take_scales(uint32_t) {}
  // What a score of this row is multiplied with.
  __device__ float slope(float scale, int) const { return scale; }
  // What its sum is relative to, in log2 units.
  __device__ float base(float scale, int r) const { return maximum[r] * scale; }
  // Queues scores of the queries at `queries` with block number `index`.
  __device__ void multiply_keys(const Stages& stages, uint32_t queries, uint32_t index) {
    const uint32_t stage = index % Stages::kStages;
    ptx::mbarrier_wait(stages.key_full + 8 * stage, index / Stages::kStages & 1);
    const uint64_t q = ptx::wgmma_descriptor(queries), k = ptx::wgmma_descriptor(stages.keys + stage * Stages::kStageBytes);
    ptx::wgmma_hold(score);
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      const uint64_t queries_at = q + i / 4 * (kQueryTileBytes / 16) + i % 4 * 2, keys_at = k + i / 4 * (Stages::kStageTileBytes / 16) + i % 4 * 2;
      if constexpr (kBlockKeys == 128) ptx::wgmma_m64n128k16(score, queries_at, keys_at, i > 0);
      else ptx::wgmma_m64n64k16(score, queries_at, keys_at, i > 0);
    }
    ptx::wgmma_commit();
  }
  // The scores of block number `index` are there.
  __device__ void scores_done(const Stages&, uint32_t) { ptx::wgmma_hold(score); }
  // Its keys may go, and what came with them.
  __device__ void keys_done(const Stages& stages, uint32_t index) { Row::template release<Stages>(stages.key_empty, index); }
  // Queues out = weight * values of block number `index`, added to what was there unless it is the first.
  __device__ void multiply_values(const Stages& stages, uint32_t index, bool first) {
    const uint32_t stage = index % Stages::kStages;
    ptx::mbarrier_wait(stages.value_full + 8 * stage, index / Stages::kStages & 1);
    const uint64_t v = ptx::wgmma_descriptor_transposed(stages.values + stage * Stages::kStageBytes, Stages::kStageTileBytes);
    ptx::wgmma_hold(out);
    ptx::wgmma_hold(weight);
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < kBlockKeys / 16; ++i) ptx::wgmma_m64k16_transposed(out, weight[i], v + i * 128, !first || i > 0);
    ptx::wgmma_commit();
  }
  __device__ void values_done(const Stages& stages, uint32_t index) {
    ptx::wgmma_hold(out);
    ptx::wgmma_hold(weight);
    Row::template release<Stages>(stages.value_empty, index);
  }
  // Values were added to `out`: there is nothing to do.
  __device__ void collect(bool, const float (&)[2]) {}
  // Scores become weights; `factor` is what earlier results shrink by.
  __device__ void soften(float scale) {
    float highest[2] = {maximum[0], maximum[1]};
#pragma unroll
    for (int i = 0; i < kBlockKeys / 2; ++i) highest[i / 2 % 2] = fmaxf(highest[i / 2 % 2], score[i]);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      highest[r] = quad_max(highest[r]);
      if ((highest[r] - maximum[r]) * scale <= kMostAbove) highest[r] = maximum[r];
      const float base = highest[r] == -INFINITY ? 0.0f : highest[r];  // a row that has seen nothing yet
      factor[r] = ptx::exp2((maximum[r] - base) * scale);
      maximum[r] = highest[r];
      sum[r] *= factor[r];
      highest[r] = base * scale;
    }
#pragma unroll
    for (int i = 0; i < kBlockKeys / 2; ++i) {
      score[i] = ptx::exp2(fmaf(score[i], scale, -highest[i / 2 % 2]));
      sum[i / 2 % 2] += score[i];
    }
  }
  __device__ void pack() {
#pragma unroll
    for (int i = 0; i < kBlockKeys / 16; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) weight[i][j] = pack_bf16(score[8 * i + 2 * j], score[8 * i + 2 * j + 1]);
  }
  __device__ void shrink() {
    if (!__any_sync(0xffffffffu, factor[0] != 1.0f || factor[1] != 1.0f)) return;
#pragma unroll
    for (int i = 0; i < D / 2; ++i) out[i] *= factor[i / 2 % 2];
  }
};

}  // namespace longview::kernels
