// The index by mma.sync, blocks by cp.async.
#include <algorithm>

#include "kernels/common/bf16.cuh"
#include "kernels/index/coverage.cuh"
#include "kernels/index/focus.cuh"
#include "kernels/index/page_choice.cuh"
#include "kernels/index/probe_weights.cuh"
#include "kernels/ptx/mma.cuh"

namespace longview::kernels {
namespace {

struct Sm80 {
  template <int D>
  using Operands = WideOperands<D>;
  static constexpr int kStages = 1;  // two would leave no room for a long context's masses in the 99 KiB of sm_86 and sm_89

  __device__ void begin() {}
  // A block to the stage of block i, which it is or comes after; nothing where `from` is null. All that read the stage before are done.
  __device__ void load(uint32_t to, const void* from, uint32_t bytes, int) {
    if (from)
      for (uint32_t at = threadIdx.x * 16; at < bytes; at += kIndexThreads * 16) ptx::cp_async_16(to + at, static_cast<const char*>(from) + at, true);
    ptx::cp_async_commit();
  }
  __device__ void wait_queries() {}  // they came with the first block
  __device__ void wait(int) {
    ptx::cp_async_wait<kStages - 1>();
    __syncthreads();
  }
  // score = 128 rows of a times 128 rows of b, added to what is there where `add`.
  template <int D>
  __device__ void multiply(float (&score)[64], uint32_t a, uint32_t b, bool add = false) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 64; ++i) score[i] = add ? score[i] : 0;
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      uint32_t rows[4];
      ptx::ldmatrix_x4(rows, block_address(a, warp * 16 + lane % 16, i * 2 + lane / 16));
#pragma unroll
      for (int j = 0; j < kBlockKeys / 16; ++j) {
        uint32_t columns[4];
        ptx::ldmatrix_x4(columns, block_address(b, j * 16 + lane / 16 * 8 + lane % 8, i * 2 + lane / 8 % 2));
        ptx::mma_bf16(*reinterpret_cast<float(*)[4]>(&score[8 * j]), rows, columns[0], columns[1]);
        ptx::mma_bf16(*reinterpret_cast<float(*)[4]>(&score[8 * j + 4]), rows, columns[2], columns[3]);
      }
    }
  }
};

// Means of a block that lie at or behind `end` do not count.
__device__ inline void hide_from(float (&score)[64], int first, int end) {
  if (first + kBlockKeys <= end) return;
#pragma unroll
  for (int i = 0; i < 64; ++i)
    if (first + i / 4 * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + i % 2 >= end) score[i] = -INFINITY;
}

// A tile a block. First every row's softmax sum over the means of all pages that the tile sees whole; then each candidate's
// share of it. Of heads of 256 a piece of the queries comes with each piece of means, again for each block: a long context's masses
// and all of the queries would not fit 99 KiB.
template <int D>
__global__ void __launch_bounds__(kIndexThreads, 2) index_kernel(const SparsePlan p) {
  using Shared = IndexShared<D, Sm80>;
  extern __shared__ char shared_bytes[];
  __shared__ float gathered[kIndexWarps * kCuts];
  char* base = aligned_shared(shared_bytes);
  const uint32_t queries = ptx::shared_address(base), keys = queries + Shared::kBlockBytes;
  auto* normaliser = reinterpret_cast<float*>(base + Shared::kNormalisers);
  auto* mass = reinterpret_cast<float*>(base + Shared::kMass);
  const Tile t = find_tile(p, static_cast<int>(blockIdx.x));
  const int candidates = t.end_candidate - t.first_candidate;
  if (!takes_tile(p, t)) return;
  if (choose_without_masses<D>(p, t, reinterpret_cast<uint32_t*>(base))) return;

  const int means = (t.first_position + 1) / kBlockKeys << p.mean_shift;
  const int first_pass = Tile::ceil_blocks(means), first_block = (t.first_candidate << p.mean_shift) / kBlockKeys;
  const int blocks = first_pass + Tile::ceil_blocks(t.end_candidate << p.mean_shift) - first_block;
  const auto block_of = [&](int i) { return i < first_pass ? i : first_block + i - first_pass; };
  constexpr int kPieces = kernels::kPieces<D>, kDims = kPieceDims<D>;
  static_assert(kPieces == 1 || Sm80::kStages == 1);
  const auto source = [&](int i) { return i < blocks * kPieces ? weighed_block<D>(p, block_of(i / kPieces), t.group.kv_head) + i % kPieces * (kBlockKeys * kDims) : nullptr; };
  Sm80 machine;
  if constexpr (kPieces == 1) load_queries<D>(p, t, queries, threadIdx.x, kIndexThreads);
  machine.begin();
  const auto load = [&](uint32_t to, int i) {
    if constexpr (kPieces > 1)
      if (i < blocks * kPieces) load_queries<D, kDims>(p, t, queries, threadIdx.x, kIndexThreads, i % kPieces * kDims);
    machine.load(to, source(i), Shared::kBlockBytes, i);
  };
  for (int i = 0; i < Sm80::kStages; ++i) load(keys + i * Shared::kBlockBytes, i);
  machine.wait_queries();

  const int lane = threadIdx.x % 32, row0 = threadIdx.x / 32 * 16 + lane / 4;
  float score[64];
  const auto multiply = [&](int i, bool means_are_rows) {
#pragma unroll 1
    for (int piece = 0; piece < kPieces; ++piece) {
      const int turn = i * kPieces + piece;
      const uint32_t block = keys + turn % Sm80::kStages * Shared::kBlockBytes;
      machine.wait(turn);
      machine.template multiply<kDims>(score, means_are_rows ? block : queries, means_are_rows ? queries : block, piece > 0);
      __syncthreads();
      load(block, turn + Sm80::kStages);
    }
  };

  RowSums rows;
  int i = 0;
  for (; i < first_pass; ++i) {
    multiply(i, false);
    hide_from(score, i * kBlockKeys, means);
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
      share[r] = quad_sum(share[r]);
      for (int j = 0; j < p.mean_shift; ++j) share[r] += __shfl_xor_sync(0xffffffffu, share[r], 4 << j);
      const int page = (block_of(i) * kBlockKeys + row0 + 8 * r) >> p.mean_shift;
      if (lane % (4 << p.mean_shift) == 0 && page >= t.first_candidate && page < t.end_candidate) mass[page - t.first_candidate] = share[r] / static_cast<float>(t.rows);
    }
  }
  __syncthreads();
  const auto mass_of = [&](int i) { return mass[i]; };
  float total = 0;
  for (int i = threadIdx.x; i < candidates; i += kIndexThreads) total += mass[i];
  const float cut = mass_cut(t.group, mass_of, candidates, sum_over_block(total, gathered), 0, 1, gathered);
  write_bits(p, t, [&](int page) { return !(mass[page - t.first_candidate] < cut); });
}

template <int D>
Status launch_index(const SparsePlan& p, Stream stream) {
  constexpr int64_t kStatic = 256;  // room for what the kernel has of static shared memory, about 130 bytes
  static_assert(IndexShared<D, Sm80>::kMass + kMostSparsePages * 4 + 1024 + kStatic <= 99 * 1024);
  const auto bytes = static_cast<int>(std::max<int64_t>(IndexShared<D, Sm80>::kMass + p.pages * 4, choice_words<D>(p.pages) * 4) + 1024);
  if (const Status error = allow_shared(index_kernel<D>, bytes)) return error;
  return launch_with_patterns<D, Sm80>(p, stream, [&](const SparsePlan& plan) {
    index_kernel<D><<<static_cast<unsigned>(p.args.tiles), kIndexThreads, bytes, cuda(stream)>>>(plan);
    return launched();
  });
}

}  // namespace

Status launch_index_sm80(const SparsePlan& p, Stream stream) {
  const int64_t d = p.args.kv.head_dim;
  return d == 64 ? launch_index<64>(p, stream) : d == 128 ? launch_index<128>(p, stream) : launch_index<256>(p, stream);
}
Status launch_coverage_sm80(const SparsePlan& p, Stream stream) {
  const int64_t d = p.args.kv.head_dim;
  return d == 64 ? launch_coverage<64, Sm80>(p, stream) : d == 128 ? launch_coverage<128, Sm80>(p, stream) : launch_coverage<256, Sm80>(p, stream);
}
Status launch_probe_weights_sm80(const SparsePlan& p, int64_t first_kv_head, int64_t count, Stream stream) {
  const int64_t d = p.args.kv.head_dim;
  const auto launch = d == 64 ? launch_probe_weights<64, Sm80> : d == 128 ? launch_probe_weights<128, Sm80> : launch_probe_weights<256, Sm80>;
  return launch(p, first_kv_head, count, stream);
}
Status launch_focus_sm80(const FocusPlan& p, Stream stream) {
  const int64_t d = p.args.kv.head_dim;
  return d == 64 ? launch_focus<64, Sm80>(p, stream) : d == 128 ? launch_focus<128, Sm80>(p, stream) : launch_focus<256, Sm80>(p, stream);
}

}  // namespace longview::kernels
