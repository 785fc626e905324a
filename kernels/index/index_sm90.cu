// The index on sm_90: blocks come by the copy engine, warpgroups multiply 64 rows each.
#include <algorithm>

#include "kernels/index/coverage.cuh"
#include "kernels/index/focus.cuh"
#include "kernels/index/machine_sm90.cuh"
#include "kernels/index/page_choice.cuh"
#include "kernels/index/probe_weights.cuh"
#include "kernels/index/weigh_sm90.cuh"

namespace longview::kernels {
namespace {

// Parts of 64 means from which each row's softmax sum is estimated: the first, the last, and one in 16 between.
constexpr int kSampleStride = 16;
__device__ inline int sampled_parts(int parts) { return 2 + (parts + kSampleStride / 2 - 2) / kSampleStride; }
__device__ inline int sampled_part(int i, int parts) { return i == 0 ? 0 : i == 1 ? parts - 1 : (i - 2) * kSampleStride + kSampleStride / 2; }

// Fewer parts are not sampled. By mass the cut of the bounds takes long to find, and is of no use where masses are alike.
constexpr int kLeastSampled = 8, kLeastSampledByMass = 64;

// Whether weights relative to these sums keep their precision, and did not overflow.
__device__ inline bool sound(float sum) { return sum > 0x1p-60f && sum < 0x1p100f; }

// A tile a block. A page's mass is the mean of its weights in the rows' softmax, whose sums are known at the end alone; yet one walk
// over the means does for almost all pages. It goes by an estimate of the sums: a row's weights are off by one factor for all
// pages, and the largest and smallest of these factors bound each page's mass. The cut of the lower bounds is at most the true one:
// pages whose upper bound lies below it are left out, the others, few of a long context, are weighed again with the true sums.
template <int D, int kWarpgroups>
__global__ void __launch_bounds__(kWarpgroups * 128, kWarpgroups == 2 ? 2 : 1) index_kernel(const SparsePlan p) {
  constexpr int kThreads = kWarpgroups * 128;
  extern __shared__ char shared_bytes[];
  __shared__ float gathered[kThreads / 32 * kCuts];
  __shared__ int listed;
  char* base = aligned_shared(shared_bytes);
  auto* mass = reinterpret_cast<float*>(base + WeighShared<D, kWarpgroups>::kBytes);
  auto* list = reinterpret_cast<uint16_t*>(mass + p.words * 32);
  const Tile t = find_tile(p, static_cast<int>(blockIdx.x));
  if (!takes_tile(p, t)) return;
  if (choose_without_masses<D>(p, t, reinterpret_cast<uint32_t*>(base))) return;

  const int thread = threadIdx.x, whole = (t.first_position + 1) / kBlockKeys, means = whole << p.mean_shift, parts = (means + kPartMeans - 1) / kPartMeans;  // whole: pages
  const bool by_mass = t.group.rule == PageRule::kMass;
  const int sampled = parts < (by_mass ? kLeastSampledByMass : kLeastSampled) ? 0 : sampled_parts(parts);
  const auto sample_then_all = [&](int i) { return i < sampled ? sampled_part(i, parts) : i - sampled; };
  const auto all = [](int part) { return part; };
  const auto add = [](float a, float b) { return a + b; };
  const bool is_row = thread < t.rows;
  Weigher<D, kWarpgroups> weigher(p, t, base);
  weigher.begin(sampled + parts, sample_then_all);
  weigher.wait_queries();
  // Weights relative to that of the first mean to begin with; rows that do not exist have no say.
  if (thread < kTileRows) weigher.offset() = is_row ? -weigher.first_score() : -INFINITY;
  __syncthreads();
  if (sampled > 0) {
    weigher.walk(sampled, sample_then_all, [&](int i, int part) {
      weigher.hide_behind(part, means);
      weigher.weigh(i < 2 ? 1 : kSampleStride, [](int) -> float* { return nullptr; });
    });
    const float sum = weigher.join(add);
    if (is_row) weigher.offset() -= __log2f(sum);
    __syncthreads();
  }
  const auto weigh_part = [&](int, int part) {
    weigher.hide_behind(part, means);
    weigher.weigh(1, [&](int i) { return mass + (part * kPartMeans >> p.mean_shift) + i; });
  };
  weigher.walk(sampled + parts, sample_then_all, weigh_part);
  float sum = weigher.join(add);
  if (!__syncthreads_and(!is_row || sound(sum))) {  // scores too far apart for an estimate: relative to the highest
    weigher.clear(-INFINITY);
    weigher.begin(parts, all);
    weigher.walk(parts, all, [&](int, int part) {
      weigher.hide_behind(part, means);
      weigher.raise();
    });
    const float highest = weigher.join([](float a, float b) { return fmaxf(a, b); });
    if (is_row) weigher.offset() = -highest * p.scale;
    __syncthreads();
    weigher.begin(parts, all);
    weigher.walk(parts, all, weigh_part);
    sum = weigher.join(add);
  }

  // From here on masses are true ones where `list` names the page.
  const float rows = static_cast<float>(t.rows), upper = 1 / (-largest_over_block(is_row ? -sum : -INFINITY, gathered) * rows), lower = 1 / (largest_over_block(is_row ? sum : 0, gathered) * rows);
  const auto is_candidate = [&](int page) { return page >= t.first_candidate && page < t.end_candidate; };
  const int candidates = t.end_candidate - t.first_candidate;
  const auto mass_outside = [&](float factor) {  // what is not the candidates'; all together have 1
    float outside = 0;
    for (int page = thread; page < whole; page += kThreads) outside += is_candidate(page) ? 0 : mass[page] * factor;
    return sum_over_block(outside, gathered);
  };
  const auto least = [&](int i) { return mass[t.first_candidate + i] * lower; };
  const float bound = by_mass && sampled == 0 ? 0 : 0.999f * mass_cut(t.group, least, candidates, by_mass ? 1 - mass_outside(lower) : 0, 0, 1 << 17, gathered);
  if (is_row) weigher.offset() -= __log2f(sum);
  if (thread == 0) listed = 0;
  __syncthreads();
  for (int first = thread / 32 * 32; first < whole; first += kThreads) {
    const int page = first + thread % 32;
    const bool again = page < whole && (is_candidate(page) ? !(mass[page] * upper < bound) : by_mass);
    const uint32_t lanes = __ballot_sync(0xffffffffu, again);
    int at = 0;
    if (thread % 32 == 0 && lanes != 0) at = atomicAdd(&listed, __popc(lanes));
    at = __shfl_sync(0xffffffffu, at, 0) + __popc(lanes & ((1u << thread % 32) - 1));
    if (again) list[at] = static_cast<uint16_t>(page);
    else if (page < whole) mass[page] = -1;
  }
  __syncthreads();
  if (listed > whole / 2) {
    weigher.begin(parts, all);
    weigher.walk(parts, all, weigh_part);
  } else {
    weigher.walk_list(list, listed, [&](int first) {
      weigher.weigh(1, [&](int i) { return first + i < listed ? mass + list[first + i] : nullptr; });
    });
  }
  __syncthreads();
  const auto mass_of = [&](int i) { return mass[t.first_candidate + i] / rows; };
  const float cut = mass_cut(t.group, mass_of, candidates, by_mass ? 1 - mass_outside(1 / rows) : 0, bound, 1 << 6, gathered);
  write_bits(p, t, [&](int page) { return !(mass[page] / rows < cut); });
}

template <int D, int kWarpgroups>
Status launch_index(const SparsePlan& p, int64_t bytes, Stream stream) {
  if (const Status error = allow_shared(index_kernel<D, kWarpgroups>, bytes)) return error;
  return launch_with_patterns<D, Sm90>(p, stream, [&](const SparsePlan& plan) {
    index_kernel<D, kWarpgroups><<<static_cast<unsigned>(p.args.tiles), kWarpgroups * 128, static_cast<size_t>(bytes), cuda(stream)>>>(plan);
    return launched();
  });
}

// Two blocks of two warpgroups share a multiprocessor where their masses leave room, else one of four has it for itself; of heads of 256,
// whose queries take 64 KiB and 64 means 32, one of three, whatever the context's length.
template <int D>
Status launch_index(const SparsePlan& p, Stream stream) {
  constexpr int64_t kOfOne = 220 * 1024, kOfTwo = 110 * 1024;  // of dynamic shared memory, for each block
  constexpr auto bytes = [](uint32_t weigher, int64_t words) { return std::max<int64_t>(weigher + words * 32 * 6, choice_words<D>(words * 32) * 4) + 1024; };
  constexpr int64_t kMostWords = kMostSparsePages / kBlockKeys * 4;
  constexpr int kOfLargest = D <= 128 ? 4 : 3;  // warpgroups
  static_assert(kMostSparsePages % kBlockKeys == 0 && bytes(WeighShared<D, kOfLargest>::kBytes, kMostWords) <= kOfOne);
  const int64_t one = bytes(WeighShared<D, kOfLargest>::kBytes, p.words), two = bytes(WeighShared<D, 2>::kBytes, p.words);
  if constexpr (D > 128) {
    return launch_index<D, kOfLargest>(p, one, stream);
  } else {
    if constexpr (bytes(WeighShared<D, 2>::kBytes, kMostWords) > kOfTwo)
      if (two > kOfTwo) return launch_index<D, kOfLargest>(p, one, stream);
    return launch_index<D, 2>(p, two, stream);
  }
}

}  // namespace

Status launch_index_sm90(const SparsePlan& p, Stream stream) {
  const int64_t d = p.args.kv.head_dim;
  return d == 64 ? launch_index<64>(p, stream) : d == 128 ? launch_index<128>(p, stream) : launch_index<256>(p, stream);
}
Status launch_coverage_sm90(const SparsePlan& p, Stream stream) {
  if (p.args.kv.format == PageFormat::kE4M3) return launch_coverage_e4m3_sm90(p, stream);
  const int64_t d = p.args.kv.head_dim;
  return d == 64 ? launch_coverage<64, Sm90>(p, stream) : d == 128 ? launch_coverage<128, Sm90>(p, stream) : launch_coverage<256, Sm90>(p, stream);
}
Status launch_probe_weights_sm90(const SparsePlan& p, int64_t first_kv_head, int64_t count, Stream stream) {
  if (p.args.kv.format == PageFormat::kE4M3) return launch_probe_weights_e4m3_sm90(p, first_kv_head, count, stream);
  const int64_t d = p.args.kv.head_dim;
  const auto launch = d == 64 ? launch_probe_weights<64, Sm90> : d == 128 ? launch_probe_weights<128, Sm90> : launch_probe_weights<256, Sm90>;
  return launch(p, first_kv_head, count, stream);
}
Status launch_focus_sm90(const FocusPlan& p, Stream stream) {
  const int64_t d = p.args.kv.head_dim;
  return d == 64 ? launch_focus<64, Sm90>(p, stream) : d == 128 ? launch_focus<128, Sm90>(p, stream) : launch_focus<256, Sm90>(p, stream);
}

}  // namespace longview::kernels
