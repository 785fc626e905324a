// From what the warps and parts have of the keys to the results of few rows: the warps of a block are joined in shared memory, the
// parts by the block that ends last. It finds that out by a counter, which is 0 again behind it, so that recorded work can be repeated.
#pragma once

#include "kernels/attention/attention.cuh"
#include "kernels/common/bf16.cuh"
#include "kernels/common/gated.cuh"
#include "kernels/common/sink.cuh"
#include "kernels/ptx/exp2.cuh"

namespace longview::kernels {

// Of a block's shared memory, while it joins: a row's dimensions, maximum and sum of each warp, then factors of the parts and results.
static_assert(join_shared_bytes(128) == kJoinSharedBytes && kJoinSharedBytes >= kJoinRows * (kMostJoinedParts + 128) * 4 && join_shared_bytes(256) >= kJoinRows * (kMostJoinedParts + 256) * 4);

// The steps of the keys that a part takes, begin .. end - 1, of those behind the unseen ones: parts differ by one step at most.
struct KeyRange {
  int64_t begin, end;
  __device__ KeyRange(int64_t steps, int64_t unseen, int64_t parts, int64_t part) {
    const int64_t least = (steps - unseen) / parts, longer = steps - unseen - least * parts;
    begin = unseen + part * least + min(part, longer);
    end = begin + least + (part < longer ? 1 : 0);
  }
};

// Rows first_row .. first_row + rows - 1 of a KV head, of which a block has one part of the keys.
struct JoinedRows {
  int part, kv_head, first_row, rows;
  uint32_t* counter;  // theirs alone
};

__device__ inline void add_scaled(float4& sum, float factor, float4 x) {
  sum.x = fmaf(factor, x.x, sum.x), sum.y = fmaf(factor, x.y, sum.y), sum.z = fmaf(factor, x.z, sum.z), sum.w = fmaf(factor, x.w, sum.w);
}

// The query head of a row.
__device__ inline int64_t joined_head(const AttentionPlan& p, const JoinedRows& j, int row) { return j.kv_head * p.group + (j.first_row + row) % p.group; }

// Four dimensions of a row's result.
template <int D>
__device__ inline void store_joined(const AttentionPlan& p, const JoinedRows& j, int row, int column, float4 x, float factor) {
  const int64_t of_head = j.first_row + row, at = of_head / p.group * p.args.heads + j.kv_head * p.group + of_head % p.group;
  uint2 result = {pack_bf16(x.x * factor, x.y * factor), pack_bf16(x.z * factor, x.w * factor)};
  if (p.args.gates) {
    const uint2 gates = *reinterpret_cast<const uint2*>(static_cast<const __nv_bfloat16*>(p.args.gates) + at * p.args.gate_stride + column * 4);
    const float2 low = unpack_bf16(result.x), high = unpack_bf16(result.y), of_low = unpack_bf16(gates.x), of_high = unpack_bf16(gates.y);
    result = {pack_bf16(gated(low.x, of_low.x), gated(low.y, of_low.y)), pack_bf16(gated(high.x, of_high.x), gated(high.y, of_high.y))};
  }
  *reinterpret_cast<uint2*>(static_cast<__nv_bfloat16*>(p.args.out) + at * D + column * 4) = result;
}

// Results of the parts, which lie in memory, to the rows. D / 4 threads take a row's dimensions; where rows are fewer than such groups
// of threads, several groups share a row's parts. What takes the time is waiting for memory: many reads are under way together, the
// first results while the factors of the parts are reckoned.
template <int D>
__device__ inline void join_parts(const AttentionPlan& p, const JoinedRows& j, char* shared) {
  constexpr int kColumns = D / 4, kGroups = kJoinThreads / kColumns, kAtOnce = 17;  // two times 17: the parts of a head where 132 multiprocessors have two blocks each of 8 heads
  const int rows = j.rows, parts = static_cast<int>(p.parts), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  auto* factors = reinterpret_cast<float*>(shared);                               // [rows, parts]
  auto* results = reinterpret_cast<float4*>(factors + kJoinRows * kMostJoinedParts);  // [rows, share, D / 4]
  __shared__ float inverse[kJoinRows];
  const int64_t stride = p.args.kv.kv_heads * p.rows, base = j.kv_head * p.rows + j.first_row;

  const int share = max(1, kGroups / rows), group = threadIdx.x / kColumns, column = threadIdx.x % kColumns;
  float4 read[kAtOnce];
  // Parts first, first + share, ... of the row.
  const auto read_results = [&](int row, int first) {
    const auto* from = reinterpret_cast<const float4*>(p.output) + (base + row) * kColumns + column;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (first + i * share < parts) read[i] = __ldcg(from + (first + i * share) * stride * kColumns);
  };
  if (group / share < rows) read_results(group / share, group % share);

  for (int row = warp; row < rows; row += kJoinWarps) {
    float maximum = -INFINITY, sum = 0;  // of this lane's parts, then of all
    for (int first = lane; first < parts; first += 64) {
      float own[2], own_sum[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int part = first + 32 * i;
        own[i] = part < parts ? __ldcg(p.maximum + part * stride + base + row) : -INFINITY;
        own_sum[i] = part < parts ? __ldcg(p.sum + part * stride + base + row) : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (first + 32 * i < parts) factors[row * parts + first + 32 * i] = own[i];
        const float both = fmaxf(maximum, own[i]);
        if (both == -INFINITY) continue;
        sum = fmaf(sum, ptx::exp2(maximum - both), own_sum[i] * ptx::exp2(own[i] - both));
        maximum = both;
      }
    }
    const float highest = warp_max(maximum);
    sum = warp_sum(sum * ptx::exp2(maximum - highest));
    for (int part = lane; part < parts; part += 32) factors[row * parts + part] = ptx::exp2(factors[row * parts + part] - highest);  // 0 for a part of which the row sees nothing
    if (lane == 0) inverse[row] = 1.0f / (sum + sink_weight(p.args.sinks, joined_head(p, j, row), highest));
  }
  __syncthreads();

  for (int row = group / share; row < rows; row += kGroups / share) {
    float4 value{};
    for (int first = group % share; first < parts; first += kAtOnce * share) {
      if (row != group / share || first != group % share) read_results(row, first);
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i)
        if (first + i * share < parts) add_scaled(value, factors[row * parts + first + i * share], read[i]);
    }
    results[(row * share + group % share) * kColumns + column] = value;
  }
  __syncthreads();
  for (int item = threadIdx.x; item < rows * kColumns; item += kJoinThreads) {
    const int row = item / kColumns;
    float4 value = results[row * share * kColumns + item % kColumns];
    for (int i = 1; i < share; ++i) add_scaled(value, 1.0f, results[(row * share + i) * kColumns + item % kColumns]);
    store_joined<D>(p, j, row, item % kColumns, value, inverse[row]);
  }
}

// Where a warp puts what it has of the first `rows` rows: maxima in log2 units, and sums and results relative to them.
template <int D>
struct WarpResults {
  int rows;
  float *maxima, *sums;  // [kJoinRows] each
  float* results;        // [kJoinRows, D]

  __device__ void set(int row, float maximum, float sum) const {
    maxima[row] = maximum;
    sums[row] = sum;
  }
  __device__ float* result(int row, int dimension) const { return results + row * D + dimension; }
};

// Ends a block of kJoinThreads. put(WarpResults) puts what a warp has. `shared`: join_shared_bytes(D) that nobody uses any more.
template <int D, typename Put>
__device__ inline void join_block(const AttentionPlan& p, const JoinedRows& j, char* shared, Put put) {
  constexpr int kColumns = D / 4;
  const int warp = threadIdx.x / 32;
  auto* results = reinterpret_cast<float*>(shared);  // [warps, rows, D]
  auto* maxima = reinterpret_cast<float(*)[kJoinRows]>(results + kJoinWarps * kJoinRows * D);  // [warps, rows]
  auto* sums = maxima + kJoinWarps;
  put(WarpResults<D>{j.rows, maxima[warp], sums[warp], results + warp * kJoinRows * D});
  __syncthreads();
  for (int item = threadIdx.x; item < j.rows * kColumns; item += kJoinThreads) {
    const int row = item / kColumns, column = item % kColumns;
    float highest = maxima[0][row], all = 0;
#pragma unroll
    for (int i = 1; i < kJoinWarps; ++i) highest = fmaxf(highest, maxima[i][row]);
    const float base = highest == -INFINITY ? 0.0f : highest;  // a row that sees nothing of this part
    float4 value{};
#pragma unroll
    for (int i = 0; i < kJoinWarps; ++i) {
      const float factor = ptx::exp2(maxima[i][row] - base);
      all = fmaf(factor, sums[i][row], all);
      add_scaled(value, factor, *reinterpret_cast<const float4*>(results + (i * kJoinRows + row) * D + column * 4));
    }
    if (p.parts == 1) {
      store_joined<D>(p, j, row, column, value, 1.0f / (all + sink_weight(p.args.sinks, joined_head(p, j, row), base)));
      continue;
    }
    const int64_t to = (static_cast<int64_t>(j.part) * p.args.kv.kv_heads + j.kv_head) * p.rows + j.first_row + row;
    if (column == 0) {
      p.maximum[to] = highest;
      p.sum[to] = all;
    }
    reinterpret_cast<float4*>(p.output)[to * kColumns + column] = value;
  }
  if (p.parts == 1) return;

  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicInc(j.counter, static_cast<unsigned>(p.parts) - 1) == p.parts - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  join_parts<D>(p, j, shared);
}

}  // namespace longview::kernels
