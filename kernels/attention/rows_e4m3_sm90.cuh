// The rows of rows_sm90 over e4m3 pages: queries and weights are e4m3 too.
//
// A score is the product of codes, times the row's, the page's and the softmax's scale. V's scale goes into the exponent, as in
// attention_e4m3: a weight is 2^(8 + score + log2(scale)) relative to the largest such, at most 256, so that V's codes are added up as
// they are and small weights keep their bits; the row's sum takes the weight over the scale. The tensor cores round the sums of 8-bit
// products to some 14 bits: those of a block go to sums of their own, and from there to float32.
#pragma once

#include "kernels/attention/rows_sm90.cuh"
#include "kernels/cache/e4m3_pages.cuh"
#include "kernels/ptx/shared.cuh"

namespace longview::kernels {

// As KvStages. With K of a block come both scales: V may be late when they are needed.
template <int D>
struct E4M3Stages : StageBarriers<4> {
  // Of a block in the page, and of its codes; of the least copy that brings a scale; of a stage of K.
  static constexpr uint32_t kBlockBytes = static_cast<uint32_t>(page_block_bytes(PageFormat::kE4M3, D)), kCodeBytes = kKeys * D, kScaleBytes = 16, kKeyBytes = kCodeBytes + 1024;
  static constexpr uint32_t kBytes = kStages * (kKeyBytes + kCodeBytes);
  uint32_t keys, values;

  __device__ E4M3Stages(uint32_t shared, uint32_t barriers) : StageBarriers(barriers), keys(shared), values(shared + kStages * kKeyBytes) {}
  __device__ uint32_t biases(uint32_t index) const { return keys + index % kStages * kKeyBytes + kCodeBytes + 2 * kScaleBytes; }
  __device__ void bring_keys(uint32_t index, const void* from) const {
    const uint32_t full = reuse(key_full, key_empty, index, kCodeBytes + 2 * kScaleBytes), to = keys + index % kStages * kKeyBytes;
    ptx::bulk_load(to, from, kCodeBytes + kScaleBytes, full);
    ptx::bulk_load(to + kCodeBytes + kScaleBytes, static_cast<const char*>(from) + kBlockBytes + kCodeBytes, kScaleBytes, full);
  }
  __device__ void bring_values(uint32_t index, const void* from) const {
    const uint32_t full = reuse(value_full, value_empty, index, kCodeBytes);
    ptx::bulk_load(values + index % kStages * kCodeBytes, static_cast<const char*>(from) + kBlockBytes, kCodeBytes, full);
  }
};

// Queues score = codes of 64 queries times those of 128 keys, both in shared memory.
template <int D>
__device__ inline void multiply_codes(float (&score)[64], uint32_t queries, uint32_t keys) {
  const uint64_t q = D == 128 ? ptx::wgmma_descriptor(queries) : ptx::wgmma_descriptor_64(queries), k = D == 128 ? ptx::wgmma_descriptor(keys) : ptx::wgmma_descriptor_64(keys);
  ptx::wgmma_hold(score);
  ptx::wgmma_fence();
#pragma unroll
  for (int i = 0; i < D / 32; ++i) ptx::wgmma_m64n128k32_e4m3(score, q + i * 2, k + i * 2, i > 0);
  ptx::wgmma_commit();
}

template <int D>
struct RowsE4M3Sm90 : RowState<D> {
  using Stages = E4M3Stages<D>;
  using Row = RowState<D>;
  using Row::factor, Row::maximum, Row::out, Row::score, Row::sum;
  static constexpr int kBlockKeys = kKeys;
  static constexpr uint32_t kBlockBytes = Stages::kBlockBytes, kWarpgroupBytes = 64 * D + 1024;  // of queries; behind them their scales
  static constexpr float kShift = 8;
  float fresh[D / 2], query_scale[2], key_scale, value_scale;
  uint32_t weight[kKeys / 32][4];

  // A warpgroup's queries to e4m3, rows of D bytes as keys of a page, by whole warps. `place(row)`: null where there is no such row.
  template <int kThreadCount, typename Place>
  __device__ static void load_queries(uint32_t to, Place place, int thread) {
    constexpr int kChunks = D / 8, kItems = 64 * kChunks;  // chunks of a row: neighbouring threads
    constexpr int kAtOnce = kItems % (4 * kThreadCount) == 0 ? 4 : 1;  // reads that are under way together: the loaders of sparse attention have few registers
    for (int begin = thread; begin < kItems; begin += kAtOnce * kThreadCount) {
      uint4 words[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        const int item = begin + j * kThreadCount;
        const __nv_bfloat16* from = place(item / kChunks);
        words[j] = from ? *reinterpret_cast<const uint4*>(from + item % kChunks * 8) : uint4{0, 0, 0, 0};
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) write_query(to, (begin + j * kThreadCount) / kChunks, (begin + j * kThreadCount) % kChunks * 8, words[j]);
    }
  }
  __device__ static const void* means(const SparsePlan& p) { return p.narrow_means; }
  // Of the queries that are at `from`.
  __device__ void take_scales(uint32_t from) {
    const uint32_t row = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
    query_scale[0] = ptx::load_shared(from + 64 * D + row * 4);
    query_scale[1] = ptx::load_shared(from + 64 * D + row * 4 + 32);
  }
  // What a score of this row is multiplied with.
  __device__ float slope(float scale, int r) const { return scale * query_scale[r] * key_scale; }
  // What its sum is relative to, in log2 units.
  __device__ float base(float, int r) const { return maximum[r] - kShift; }
  __device__ void multiply_keys(const Stages& stages, uint32_t queries, uint32_t index) {
    const uint32_t stage = index % Stages::kStages;
    ptx::mbarrier_wait(stages.key_full + 8 * stage, index / Stages::kStages & 1);
    multiply_codes<D>(score, queries, stages.keys + stage * Stages::kKeyBytes);
  }
  __device__ void scores_done(const Stages& stages, uint32_t index) {
    ptx::wgmma_hold(score);
    const uint32_t scales = stages.keys + index % Stages::kStages * Stages::kKeyBytes + Stages::kCodeBytes;
    key_scale = ptx::load_shared(scales);
    value_scale = ptx::load_shared(scales + Stages::kScaleBytes);
  }
  __device__ void keys_done(const Stages& stages, uint32_t index) { Row::template release<Stages>(stages.key_empty, index); }
  // Queues fresh = weight * values of block number `index`.
  __device__ void multiply_values(const Stages& stages, uint32_t index, bool) {
    const uint32_t stage = index % Stages::kStages;
    ptx::mbarrier_wait(stages.value_full + 8 * stage, index / Stages::kStages & 1);
    const uint64_t v = ptx::wgmma_descriptor(stages.values + stage * Stages::kCodeBytes);
    ptx::wgmma_hold(fresh);
    ptx::wgmma_hold(weight);
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < kKeys / 32; ++i) ptx::wgmma_m64k32_e4m3(fresh, weight[i], v + i * 2, i > 0);
    ptx::wgmma_commit();
  }
  __device__ void values_done(const Stages& stages, uint32_t index) {
    ptx::wgmma_hold(fresh);
    ptx::wgmma_hold(weight);
    Row::template release<Stages>(stages.value_empty, index);
  }
  // Adds the fresh sums to earlier ones, which shrink by what was the factor when these weights were made.
  __device__ void collect(bool first, const float (&earlier)[2]) {
    if (first)
#pragma unroll
      for (int i = 0; i < D / 2; ++i) out[i] = 0;
#pragma unroll
    for (int i = 0; i < D / 2; ++i) out[i] = fmaf(out[i], earlier[i / 2 % 2], fresh[i]);
  }
  __device__ void shrink() {}
  // Scores become weights; `factor` is what earlier results shrink by.
  __device__ void soften(float scale) {
    const uint32_t bits = __float_as_uint(value_scale);  // a power of two
    const float lift = static_cast<float>(static_cast<int>(bits >> 23) - 127), share = __uint_as_float((254u << 23) - bits);
    const float slopes[2] = {slope(scale, 0), slope(scale, 1)};
    float highest[2] = {-INFINITY, -INFINITY}, added[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < 64; ++i) highest[i / 2 % 2] = fmaxf(highest[i / 2 % 2], score[i]);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      highest[r] = fmaxf(maximum[r], fmaf(quad_max(highest[r]), slopes[r], lift));
      const float base = highest[r] == -INFINITY ? 0.0f : highest[r];  // a row that has seen nothing yet
      factor[r] = ptx::exp2(maximum[r] - base);
      maximum[r] = highest[r];
      highest[r] = base - lift - kShift;
    }
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      score[i] = ptx::exp2(fmaf(score[i], slopes[i / 2 % 2], -highest[i / 2 % 2]));
      added[i / 2 % 2] += score[i];
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) sum[r] = fmaf(sum[r], factor[r], added[r] * share);
  }
  __device__ void pack() {
#pragma unroll
    for (int i = 0; i < kKeys / 32; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int at = 16 * i + j / 2 * 8 + j % 2 * 2;  // two columns, and the two eight further
        weight[i][j] = pack_e4m3(score[at], score[at + 1], score[at + 4], score[at + 5]);
      }
  }

 private:
  // Eight dimensions of a row, which the threads of the row scale alike.
  __device__ static void write_query(uint32_t to, int row, int dimension, uint4 words) {
    float x[8], largest = 0;
    unpack_bf16x8(words, x);
#pragma unroll
    for (int i = 0; i < 8; ++i) largest = fmaxf(largest, fabsf(x[i]));
#pragma unroll
    for (int step = D / 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
    const float scale = largest < kSmallestRow ? 1.0f : largest / kLargestE4M3, inverse = 1.0f / scale;
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] *= inverse;
    const auto at = to + static_cast<uint32_t>(e4m3_key_offset(D, row, dimension));
    ptx::store_shared(at, uint2{pack_e4m3(x[0], x[1], x[2], x[3]), pack_e4m3(x[4], x[5], x[6], x[7])});
    if (dimension == 0) ptx::store_shared(to + 64 * D + row * 4, scale);
  }
};

}  // namespace longview::kernels
