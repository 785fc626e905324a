// Softmax sums of rows over keys, for the index, its probes and the focus. They are the same for all architectures but for how a block
// of 128 keys comes to shared memory and how it is multiplied: `Machine`, in index_sm80, machine_sm90 and probes_e4m3_sm90. A warp holds
// 16 rows by 128 columns of a product in all of them, as ptx/wgmma.cuh describes it.
#pragma once

#include "kernels/attention/hide.cuh"
#include "kernels/common/bf16.cuh"
#include "kernels/index/sparse.cuh"
#include "kernels/ptx/exp2.cuh"

namespace longview::kernels {

constexpr int kIndexThreads = 256, kIndexWarps = kIndexThreads / 32;

// Blocks of threads that a multiprocessor is to have room for, by their registers: of sm_80's and heads of 256 shared memory holds one.
template <int D, class Machine>
constexpr int kIndexBlocks = D > 128 && Machine::kStages == 1 ? 1 : 2;

// Dimensions of a block that come to shared memory at a time, and are multiplied: all of them, or of heads of 256, whose blocks take 64 KiB,
// the 64 of a tile. A block's pieces lie one behind the other.
template <int D>
constexpr int kPieceDims = D <= 128 ? D : 64;
template <int D>
constexpr int kPieces = D / kPieceDims<D>;

template <int D, class Machine>
struct IndexShared {
  static constexpr uint32_t kBlockBytes = kBlockKeys * kPieceDims<D> * 2;         // of a block's piece
  static constexpr uint32_t kNormalisers = (1 + Machine::kStages) * kBlockBytes;  // behind queries and keys
  static constexpr uint32_t kMass = kNormalisers + kTileRows * 4;
};

// What PageScores multiplies, as bf16: bytes of the queries and of a stage in shared memory, of a K block's piece as it is brought.
template <int D>
struct WideOperands {
  static constexpr int kPieces = kernels::kPieces<D>;
  static constexpr uint32_t kBlockBytes = kBlockKeys * kPieceDims<D> * 2, kQueryBytes = kBlockKeys * D * 2, kStageBytes = kBlockBytes;
  static __device__ const void* keys(const PagedKv& kv, int page, int kv_head) { return page_block<D>(kv, page, kv_head); }
  // Starts bringing 128 queries. `place(row)`: null where there is no such row.
  template <typename Place>
  static __device__ void load_queries(uint32_t to, Place place) {
    for (int item = threadIdx.x; item < kTileRows * (D / 8); item += kIndexThreads) {
      const int row = item / (D / 8), chunk = item % (D / 8);
      const __nv_bfloat16* from = place(row);
      ptx::cp_async_16(block_address(to, row, chunk), from ? from + chunk * 8 : nullptr, from != nullptr);
    }
  }
};

// The first of a thread's two rows; the other is 8 rows below.
__device__ inline int first_row_of_thread() { return static_cast<int>(threadIdx.x) / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4; }

// Begins at a multiple of 1,024 bytes.
__device__ inline char* aligned_shared(char* bytes) { return bytes + (-ptx::shared_address(bytes) & 1023); }

// Softmax sums of two rows over part of their keys, by a thread alone; the four threads of a row are joined at the end.
struct RowSums {
  float maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, chosen[2] = {0, 0};

  // Adds scores (minus infinity: not seen). What they add is chosen too where `visits_r` is 1.
  __device__ void add(const float (&score)[64], float scale, float visits0 = 0, float visits1 = 0) {
    const float visits[2] = {visits0, visits1};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float highest = maximum[r];
#pragma unroll
      for (int j = 0; j < 16; ++j) highest = fmaxf(highest, fmaxf(score[4 * j + 2 * r], score[4 * j + 2 * r + 1]));
      const float factor = ptx::exp2((maximum[r] - finite(highest)) * scale);
      maximum[r] = highest;
      const float added = weigh(score, scale, r);
      sum[r] = fmaf(sum[r], factor, added);
      chosen[r] = fmaf(chosen[r], factor, added * visits[r]);
    }
  }
  // Scores that were added are chosen, but for those that have been hidden since.
  __device__ void choose(const float (&score)[64], float scale) {
#pragma unroll
    for (int r = 0; r < 2; ++r) chosen[r] += weigh(score, scale, r);
  }
  __device__ void join(float scale) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float highest = quad_max(maximum[r]);
      const float factor = ptx::exp2((maximum[r] - finite(highest)) * scale);
      maximum[r] = highest;
      for (float* x : {&sum[r], &chosen[r]}) *x = quad_sum(*x * factor);
    }
  }

 private:
  __device__ static float finite(float x) { return x == -INFINITY ? 0.0f : x; }  // of a row that has seen nothing yet
  __device__ float weigh(const float (&score)[64], float scale, int r) const {
    const float base = finite(maximum[r]) * scale;
    float added = 0;
#pragma unroll
    for (int j = 0; j < 16; ++j) added += ptx::exp2(fmaf(score[4 * j + 2 * r], scale, -base)) + ptx::exp2(fmaf(score[4 * j + 2 * r + 1], scale, -base));
    return added;
  }
};

// Bytes of shared memory for PageScores.
template <int D, class Machine>
constexpr int page_scores_bytes = Machine::template Operands<D>::kQueryBytes + Machine::kStages * Machine::template Operands<D>::kStageBytes + 1024;

// Products of 128 queries with the keys of a KV head's pages, one page after the other. One to a block of threads, in all of them.
template <int D, class Machine>
class PageScores {
  using Operands = typename Machine::template Operands<D>;
  static constexpr int kPieces = Operands::kPieces;

 public:
  __device__ PageScores(char* shared, const PagedKv& kv, int kv_head) : kv_(kv), kv_head_(kv_head), queries_(ptx::shared_address(aligned_shared(shared))) { machine_.begin(); }

  // Calls each(page, score) for pages begin .. end - 1. `place(row)`: where a query lies, null for a row that does not exist.
  template <typename Place, typename Each>
  __device__ void walk(int begin, int end, Place place, Each each) {
    Operands::load_queries(queries_, place);
    for (int i = 0; i < Machine::kStages; ++i) load(begin * kPieces + i, end, turn_ + i);
    machine_.wait_queries();
    float score[64];
    for (int page = begin; page < end; ++page) {
#pragma unroll 1
      for (int piece = 0; piece < kPieces; ++piece, ++turn_) {
        machine_.wait(turn_);
        machine_.template multiply<D / kPieces>(score, queries_ + piece * Operands::kBlockBytes, stage(turn_), piece > 0);
        __syncthreads();
        load(page * kPieces + piece + Machine::kStages, end, turn_ + Machine::kStages);
      }
      each(page, score);
    }
  }

 private:
  __device__ uint32_t stage(int turn) const { return queries_ + Operands::kQueryBytes + turn % Machine::kStages * Operands::kStageBytes; }
  __device__ const void* piece_of(int page, int piece) const { return static_cast<const char*>(Operands::keys(kv_, page, kv_head_)) + piece * Operands::kBlockBytes; }
  // Piece number `at` of all pages', those of a page one behind the other.
  __device__ void load(int at, int end, int turn) { machine_.load(stage(turn), at / kPieces < end ? piece_of(at / kPieces, at % kPieces) : nullptr, Operands::kBlockBytes, turn); }

  const PagedKv& kv_;
  const int kv_head_;
  const uint32_t queries_;
  Machine machine_;
  int turn_ = 0;
};

// Combines what the eight threads of a warp with one place in their groups of four have under the same of 32 indices. They trade
// halves: values of first_traded() .. + 3 are left to each, in x[0] .. x[3].
template <typename Combine>
__device__ inline void trade_halves(float (&x)[32], Combine combine) {
#pragma unroll
  for (int step = 4, count = 16; step < 32; step *= 2, count /= 2) {
    const bool upper = threadIdx.x & step;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      if (i >= count) break;
      const float got = __shfl_xor_sync(0xffffffffu, upper ? x[i] : x[i + count], step);
      x[i] = combine(upper ? x[i + count] : x[i], got);
    }
  }
}
__device__ inline int first_traded() {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  return (lane & 4) * 4 + (lane & 8) + (lane & 16) / 4;
}

// Calls take(key, sum) once for each key of a page, by some thread of the warp: the sum over its rows of 2^(power (score scale + offset)).
template <int kPower, typename Take>
__device__ inline void sum_columns(const float (&score)[64], float scale, const float (&offset)[2], Take take) {
  float sum[32] = {};
#pragma unroll
  for (int i = 0; i < 64; ++i) sum[i / 4 * 2 + i % 2] += ptx::exp2(kPower * fmaf(score[i], scale, offset[i / 2 % 2]));
  trade_halves(sum, [](float a, float b) { return a + b; });
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int i = first_traded() + j;
    take(static_cast<int>(threadIdx.x) % 4 * 2 + i / 2 * 8 + i % 2, sum[j]);
  }
}

// Hides what rows at these positions do not see of the page's keys.
__device__ inline void hide_future(float (&score)[64], int page, int position0, int position1) {
  const int begin = page * kBlockKeys;
  if (min(position0, position1) - begin < kBlockKeys - 1) hide_behind(score, position0 - begin, position1 - begin);
}

}  // namespace longview::kernels
