// Which pages each tile visits. A block of threads takes a tile; what is the same for all tiles of a head has been chosen before.
#pragma once

#include <algorithm>

#include "kernels/index/block_sparse.cuh"
#include "kernels/index/row_sums.cuh"
#include "kernels/index/vertical_slash.cuh"

namespace longview::kernels {

template <typename T, typename Combine>
__device__ inline T over_block(T value, T* gathered, Combine combine) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = combine(value, __shfl_xor_sync(0xffffffffu, value, step));
  __syncthreads();
  if (threadIdx.x % 32 == 0) gathered[threadIdx.x / 32] = value;
  __syncthreads();
  value = gathered[0];
  for (int i = 1; i < kIndexWarps; ++i) value = combine(value, gathered[i]);
  return value;
}

// The least mass of a page that is kept.
__device__ inline float mass_cut(const HeadGroup& group, const float* mass, int count, float* gathered) {
  const auto add = [](float a, float b) { return a + b; };
  if (group.rule == PageRule::kShare) return group.threshold;
  if (group.rule == PageRule::kRelative) {
    float largest = 0;
    for (int i = threadIdx.x; i < count; i += kIndexThreads) largest = fmaxf(largest, mass[i]);
    return group.threshold * over_block(largest, gathered, [](float a, float b) { return fmaxf(a, b); });
  }
  // The largest cut under which at most `threshold` of the mass lies: bits of a positive float grow with it.
  uint32_t low = 0, high = __float_as_uint(2.0f);
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    float below = 0;
    for (int i = threadIdx.x; i < count; i += kIndexThreads) below += mass[i] < __uint_as_float(middle) ? mass[i] : 0.0f;
    (over_block(below, gathered, add) <= group.threshold ? low : high) = middle;
  }
  return __uint_as_float(low);
}

// What the tile's rows see and visit, for the counters of their heads. `full`: visited pages that all rows see whole.
__device__ inline void count_visits(const SparsePlan& p, const Tile& t, int full, int means) {
  const HeadGroup& g = t.group;
  const int whole = (t.first_position + 1) / kBlockKeys * kBlockKeys;
  for (int head = threadIdx.x; head < g.heads; head += kIndexThreads) {
    // The head's rows of the tile: tokens in a row, seeing `seen` keys and on.
    const int first = (head + g.heads - t.first_row % g.heads) % g.heads, rows = first < t.rows ? (t.rows - 1 - first) / g.heads + 1 : 0;
    const int seen = static_cast<int>(p.args.first_position) + (t.first_row + first) / g.heads + 1;
    const double causal = static_cast<double>(rows) * seen + rows * (rows - 1) / 2;
    double visited = causal + static_cast<double>(rows) * (static_cast<int64_t>(full) * kBlockKeys - whole + means);
    if (g.limited) {
      visited = 0;
      for (int i = 0; i < rows; ++i) visited += min(static_cast<int64_t>(seen + i), static_cast<int64_t>(g.sink) + g.window);
    }
    atomicAdd(&p.args.counters[g.first_head + head].visited, visited);
    atomicAdd(&p.args.counters[g.first_head + head].causal, causal);
  }
}

// Writes a tile's bits: the pages that are always visited, and candidates that are kept.
template <typename Keeps>
__device__ inline void write_bits(const SparsePlan& p, const Tile& t, Keeps keeps) {
  __shared__ int counts[2];
  if (threadIdx.x < 2) counts[threadIdx.x] = 0;
  __syncthreads();
  uint32_t* bits = p.bits + blockIdx.x * p.words;
  const int lane = threadIdx.x % 32, whole = (t.first_position + 1) / kBlockKeys;
  for (int word = threadIdx.x / 32; word < p.words; word += kIndexWarps) {
    const int page = word * 32 + lane;
    const bool candidate = page >= t.first_candidate && page < t.end_candidate;
    const uint32_t set = __ballot_sync(0xffffffffu, page < t.pages && (!candidate || keeps(page)));
    const uint32_t full = __ballot_sync(0xffffffffu, page < whole), possible = __ballot_sync(0xffffffffu, candidate);
    if (lane != 0) continue;
    bits[word] = set;
    atomicAdd(&counts[0], __popc(set & full));
    atomicAdd(&counts[1], __popc(possible & ~set));
  }
  __syncthreads();
  if (p.args.counters) count_visits(p, t, counts[0], t.group.means ? counts[1] : 0);
}

// Pages of a block of means that lie outside begin .. end - 1 do not count.
__device__ inline void hide_outside(float (&score)[64], int first_page, int begin, int end) {
  if (first_page >= begin && first_page + kBlockKeys <= end) return;
#pragma unroll
  for (int i = 0; i < 64; ++i) {
    const int page = first_page + i / 4 * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + i % 2;
    if (page < begin || page >= end) score[i] = -INFINITY;
  }
}

// A tile a block. First every row's softmax sum over the means of all pages that the tile sees whole; then each candidate's
// share of it.
template <int D, class Machine>
__global__ void __launch_bounds__(kIndexThreads, 2) index_kernel(const SparsePlan p) {
  using Shared = IndexShared<D, Machine>;
  extern __shared__ char shared_bytes[];
  __shared__ float gathered[kIndexWarps];
  char* base = aligned_shared(shared_bytes);
  const uint32_t queries = ptx::shared_address(base), keys = queries + Shared::kBlockBytes;
  auto* normaliser = reinterpret_cast<float*>(base + Shared::kNormalisers);
  auto* mass = reinterpret_cast<float*>(base + Shared::kMass);
  const Tile t = find_tile(p, static_cast<int>(blockIdx.x));
  const int candidates = t.end_candidate - t.first_candidate;
  if (candidates == 0 || t.group.rule == PageRule::kNone) return write_bits(p, t, [](int) { return false; });
  if (t.group.rule == PageRule::kSlash) return write_bits(p, t, [&](int page) { return meets_slash(p, t, page); });
  if (t.group.rule == PageRule::kBlocks) {
    __shared__ uint32_t chosen[kMostSparsePages / 32];
    choose_blocks<D>(p, t, chosen, reinterpret_cast<uint32_t*>(base));
    return write_bits(p, t, [&](int page) { return chosen[page / 32] >> page % 32 & 1; });
  }

  const int whole = (t.first_position + 1) / kBlockKeys;  // pages
  const int first_pass = Tile::ceil_blocks(whole), first_block = t.first_candidate / kBlockKeys;
  const int blocks = first_pass + Tile::ceil_blocks(t.end_candidate) - first_block;
  const auto block_of = [&](int i) { return i < first_pass ? i : first_block + i - first_pass; };
  const auto source = [&](int i) { return i < blocks ? mean_block<D>(p, block_of(i), t.group.kv_head) : nullptr; };
  Machine machine;
  load_queries<D>(p, t, queries, threadIdx.x, kIndexThreads);
  machine.begin();
  for (int i = 0; i < Machine::kStages; ++i) machine.load(keys + i * Shared::kBlockBytes, source(i), Shared::kBlockBytes, i);
  machine.wait_queries();

  const int lane = threadIdx.x % 32, row0 = threadIdx.x / 32 * 16 + lane / 4;
  float score[64];
  const auto multiply = [&](int i, bool pages_are_rows) {
    const uint32_t block = keys + i % Machine::kStages * Shared::kBlockBytes;
    machine.wait(i);
    machine.template multiply<D>(score, pages_are_rows ? block : queries, pages_are_rows ? queries : block);
    __syncthreads();
    machine.load(block, source(i + Machine::kStages), Shared::kBlockBytes, i);
  };

  RowSums rows;
  int i = 0;
  for (; i < first_pass; ++i) {
    multiply(i, false);
    hide_outside(score, i * kBlockKeys, 0, whole);
    rows.add(score, p.scale);
  }
  rows.join(p.scale);
  if (lane % 4 == 0)
    for (int r = 0; r < 2; ++r)  // rows that do not exist have no say
      normaliser[row0 + 8 * r] = row0 + 8 * r < t.rows ? -rows.maximum[r] * p.scale - __log2f(rows.sum[r]) : -INFINITY;
  __syncthreads();

  for (; i < blocks; ++i) {
    multiply(i, true);
    float share[2] = {0, 0};
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const float2 offset = *reinterpret_cast<const float2*>(normaliser + j * 8 + lane % 4 * 2);
#pragma unroll
      for (int r = 0; r < 2; ++r) share[r] += ptx::exp2(fmaf(score[4 * j + 2 * r], p.scale, offset.x)) + ptx::exp2(fmaf(score[4 * j + 2 * r + 1], p.scale, offset.y));
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      share[r] += __shfl_xor_sync(0xffffffffu, share[r], 1);
      share[r] += __shfl_xor_sync(0xffffffffu, share[r], 2);
      const int page = block_of(i) * kBlockKeys + row0 + 8 * r;
      if (lane % 4 == 0 && page >= t.first_candidate && page < t.end_candidate) mass[page - t.first_candidate] = share[r] / static_cast<float>(t.rows);
    }
  }
  __syncthreads();
  const float cut = mass_cut(t.group, mass, candidates, gathered);
  write_bits(p, t, [&](int page) { return mass[page - t.first_candidate] >= cut; });
}

template <int D, class Machine>
Status launch_index(const SparsePlan& p, Stream stream) {
  static_assert(IndexShared<D, Machine>::kMass + kMostSparsePages * 4 + 1024 <= (Machine::kStages == 1 ? 99 : 227) * 1024);
  if (p.args.slash_groups > 0)
    if (const Status status = launch_vertical_slash<D, Machine>(p, stream)) return status;
  if (p.args.block_groups > 0)
    if (const Status status = launch_pool_keys(p, stream)) return status;
  const auto bytes = static_cast<int>(std::max<int64_t>(IndexShared<D, Machine>::kMass + p.pages * 4, p.pages * 8) + 1024);
  if (const auto error = cudaFuncSetAttribute(index_kernel<D, Machine>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes)) return static_cast<Status>(error);
  index_kernel<D, Machine><<<static_cast<unsigned>(p.args.tiles), kIndexThreads, bytes, cuda(stream)>>>(p);
  return launched();
}

}  // namespace longview::kernels
