// What a tile visits: by its pages' masses, or by what is the same for all tiles of a head and has been chosen before. A block of
// threads takes a tile, whatever its number of threads.
#pragma once

#include "kernels/index/block_sparse.cuh"
#include "kernels/index/row_sums.cuh"
#include "kernels/index/vertical_slash.cuh"

namespace longview::kernels {

// `gathered`: a float for each warp, in shared memory.
template <typename Combine>
__device__ inline float over_block(float value, float* gathered, Combine combine) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = combine(value, __shfl_xor_sync(0xffffffffu, value, step));
  __syncthreads();
  if (threadIdx.x % 32 == 0) gathered[threadIdx.x / 32] = value;
  __syncthreads();
  value = gathered[0];
  for (int i = 1; i < static_cast<int>(blockDim.x) / 32; ++i) value = combine(value, gathered[i]);
  return value;
}
__device__ inline float sum_over_block(float value, float* gathered) {
  return over_block(value, gathered, [](float a, float b) { return a + b; });
}
__device__ inline float largest_over_block(float value, float* gathered) {
  return over_block(value, gathered, [](float a, float b) { return fmaxf(a, b); });
}

// The least mass of a page that is kept, of the masses mass(0) .. mass(count - 1); `total`: of all candidates, for kMass alone.
// Masses that are too small, and those of some pages left out, make the cut smaller, never larger. `step`: 1, or for a cut that may be
// smaller by up to `step` of its last bits.
template <typename Mass>
__device__ inline float mass_cut(const HeadGroup& group, Mass mass, int count, float total, float* gathered, uint32_t step = 1) {
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  if (group.rule == PageRule::kShare) return group.threshold;
  if (group.rule == PageRule::kRelative) {
    float largest = 0;
    for (int i = thread; i < count; i += threads) largest = fmaxf(largest, mass(i));
    return group.threshold * largest_over_block(largest, gathered);
  }
  // The largest cut that keeps all but `threshold` of the mass: bits of a positive float grow with it.
  uint32_t low = 0, high = __float_as_uint(2.0f);
  while (high - low > step) {
    const uint32_t middle = low + (high - low) / 2;
    float kept = 0;
    for (int i = thread; i < count; i += threads) kept += mass(i) >= __uint_as_float(middle) ? mass(i) : 0.0f;
    (sum_over_block(kept, gathered) >= total - group.threshold ? low : high) = middle;
  }
  return __uint_as_float(low);
}

// What the tile's rows see and visit, for the counters of their heads. `full`: visited pages that all rows see whole.
__device__ inline void count_visits(const SparsePlan& p, const Tile& t, int full, int means) {
  const HeadGroup& g = t.group;
  const int whole = (t.first_position + 1) / kBlockKeys * kBlockKeys;
  for (int head = threadIdx.x; head < g.heads; head += static_cast<int>(blockDim.x)) {
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
  for (int word = threadIdx.x / 32; word < p.words; word += static_cast<int>(blockDim.x) / 32) {
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

// Writes the bits of a tile that needs no masses; false where it does. `scratch`: 2 * pages words.
template <int D>
__device__ inline bool choose_without_masses(const SparsePlan& p, const Tile& t, uint32_t* scratch) {
  if (t.first_candidate == t.end_candidate || t.group.rule == PageRule::kNone) {
    write_bits(p, t, [](int) { return false; });
  } else if (t.group.rule == PageRule::kSlash) {
    write_bits(p, t, [&](int page) { return meets_slash(p, t, page); });
  } else if (t.group.rule == PageRule::kBlocks) {
    __shared__ uint32_t chosen[kMostSparsePages / 32];
    choose_blocks<D>(p, t, chosen, scratch);
    write_bits(p, t, [&](int page) { return chosen[page / 32] >> page % 32 & 1; });
  } else {
    return false;
  }
  return true;
}

// What is chosen for all tiles of a head at once.
template <int D, class Machine>
Status launch_patterns(const SparsePlan& p, Stream stream) {
  if (p.args.slash_groups > 0)
    if (const Status status = launch_vertical_slash<D, Machine>(p, stream)) return status;
  return p.args.block_groups > 0 ? launch_pool_keys(p, stream) : kOk;
}

}  // namespace longview::kernels
