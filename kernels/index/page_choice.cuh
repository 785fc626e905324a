// What a tile visits: by its pages' masses, or by what is the same for all tiles of a head and has been chosen before. A block of
// threads takes a tile, whatever its number of threads.
#pragma once

#include "kernels/index/block_sparse.cuh"
#include "kernels/index/row_sums.cuh"
#include "kernels/index/vertical_slash.cuh"

namespace longview::kernels {

// Combines each of the threads' values over the block. `gathered`: kCount floats for each warp, in shared memory.
template <int kCount, typename Combine>
__device__ inline void over_block(float (&values)[kCount], float* gathered, Combine combine) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2)
#pragma unroll
    for (float& value : values) value = combine(value, __shfl_xor_sync(0xffffffffu, value, step));
  __syncthreads();
  if (threadIdx.x % 32 == 0)
    for (int i = 0; i < kCount; ++i) gathered[threadIdx.x / 32 * kCount + i] = values[i];
  __syncthreads();
  for (int i = 0; i < kCount; ++i) values[i] = gathered[i];
  for (int warp = 1; warp < static_cast<int>(blockDim.x) / 32; ++warp)
    for (int i = 0; i < kCount; ++i) values[i] = combine(values[i], gathered[warp * kCount + i]);
}
__device__ inline float sum_over_block(float value, float* gathered) {
  float values[1] = {value};
  over_block(values, gathered, [](float a, float b) { return a + b; });
  return values[0];
}
__device__ inline float largest_over_block(float value, float* gathered) {
  float values[1] = {value};
  over_block(values, gathered, [](float a, float b) { return fmaxf(a, b); });
  return values[0];
}

constexpr int kCuts = 3;  // that mass_cut tries at a time: three quarter what is left

// The least mass of a page that is kept, of the masses mass(0) .. mass(count - 1). `total`: of all candidates, for kMass alone. Where
// masses are too small, or pages are left out, the cut is too small, never too large. `low`: a bound of the cut that is known; kMass
// gives a cut that is too small by at most `step` in the last place. `gathered`: kCuts floats for each warp, in shared memory.
template <typename Mass>
__device__ inline float mass_cut(const HeadGroup& group, Mass mass, int count, float total, float low, uint32_t step, float* gathered) {
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  if (group.rule == PageRule::kShare) return group.threshold;
  float largest = 0;
  for (int i = thread; i < count; i += threads) largest = fmaxf(largest, mass(i));
  largest = largest_over_block(largest, gathered);
  if (group.rule == PageRule::kRelative) return group.threshold * largest;
  // The largest cut that keeps all but `threshold` of the mass: bits of a positive float grow with it.
  uint32_t cut = __float_as_uint(low), high = __float_as_uint(largest) + 1;
  while (high > cut + step) {
    const uint32_t quarter = (high - cut + kCuts) / (kCuts + 1);
    float kept[kCuts] = {};
    for (int i = thread; i < count; i += threads)
      for (int j = 0; j < kCuts; ++j) kept[j] += mass(i) >= __uint_as_float(cut + (j + 1) * quarter) ? mass(i) : 0.0f;
    over_block(kept, gathered, [](float a, float b) { return a + b; });
    uint32_t reached = 0;
    while (reached < kCuts && kept[reached] >= total - group.threshold) ++reached;
    cut += reached * quarter;
    high = min(high, cut + quarter);
  }
  return __uint_as_float(total > group.threshold ? cut : high);
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

// Writes the bits of a tile that needs no masses; false where it does. `scratch`: choice_words.
template <int D>
__device__ inline bool choose_without_masses(const SparsePlan& p, const Tile& t, uint32_t* scratch) {
  if (t.first_candidate == t.end_candidate || t.group.rule == PageRule::kNone) {
    write_bits(p, t, [](int) { return false; });
  } else if (t.group.rule == PageRule::kSlash) {
    write_bits(p, t, [&](int page) { return meets_slash(p, t, page); });
  } else if (t.group.rule == PageRule::kBlocks) {
    choose_blocks<D>(p, t, scratch);
    write_bits(p, t, [&](int page) { return scratch[page / 32] >> page % 32 & 1; });
  } else {
    return false;
  }
  return true;
}

// Whether this launch chooses for the tile: block-sparse heads by the pooled keys that are there, all others with the first of these.
__device__ inline bool takes_tile(const SparsePlan& p, const Tile& t) {
  if (t.group.rule != PageRule::kBlocks) return p.first_pooled == 0;
  return t.group.kv_head >= p.first_pooled && t.group.kv_head < p.first_pooled + p.pooled_heads;
}

// launch(plan): the index, behind what is chosen for all tiles of a head at once; once for each batch of pooled keys.
template <int D, class Machine, typename Launch>
Status launch_with_patterns(SparsePlan p, Stream stream, Launch launch) {
  if (p.args.slash_groups > 0)
    if (const Status status = launch_vertical_slash<D, Machine>(p, stream)) return status;
  if (p.args.block_groups == 0) return launch(p);
  const int64_t kv_heads = p.args.kv.kv_heads, batch = pool_batch(p.pages, D, kv_heads);
  for (int64_t first = 0; first < kv_heads; first += batch) {
    p.first_pooled = static_cast<int>(first);
    p.pooled_heads = static_cast<int>(std::min(batch, kv_heads - first));
    if (const Status status = launch_pool_keys(p, stream)) return status;
    if (const Status status = launch(p)) return status;
  }
  return kOk;
}

}  // namespace longview::kernels
