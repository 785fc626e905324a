// How a sparse call is cut into tiles, and what lies where in its workspace: shared by index, coverage and attention.
#pragma once

#include <cuda_bf16.h>

#include "kernels/api/sparse.h"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/cp_async.cuh"

namespace longview::kernels {

constexpr int kTileRows = static_cast<int>(kSparseTileRows), kBlockKeys = static_cast<int>(kPageTokens);
constexpr int kSlashTokens = 64;  // tokens that choose together, in vertical-slash and block-sparse
constexpr float kMeanBias = 7.0f;  // log2(128): a mean stands for 128 keys
constexpr int kLargestPosition = static_cast<int>(kMostSparsePages * kPageTokens);

// Which token of the chunk probe i is; probes are spread evenly.
__host__ __device__ constexpr int probe_token(int64_t tokens, int64_t probes, int i) { return static_cast<int>((2 * i + 1) * tokens / (2 * probes)); }
__host__ __device__ constexpr int64_t probe_count(int64_t tokens) { return tokens < kProbeTokens ? tokens : kProbeTokens; }

struct SparsePlan {
  SparseArgs args;
  float scale;                   // log2(e) / sqrt(D)
  // The layout's sizes, and pointers to its parts.
  int64_t pages, mean_blocks, words;
  const __nv_bfloat16* means;
  uint32_t* bits;
  int32_t* next_tile;            // counts the tiles that persistent blocks have taken
  float* probes;
  int64_t probe_parts;
  float *gains, *probe_offsets, *key_weights;
  uint32_t *column_bits, *diagonal_bits;
  float *sums, *pooled;
  const __nv_bfloat16* fine_means;
  int mean_shift;                // log2 of means_of_page
  const char* narrow_means;
  int first_pooled = 0, pooled_heads = 0;  // KV heads that `pooled` holds now
};

// The query of a token of the chunk and a head.
template <int D>
__device__ inline const __nv_bfloat16* query_of(const SparsePlan& p, int token, int head) {
  return static_cast<const __nv_bfloat16*>(p.args.q) + (static_cast<int64_t>(token) * p.args.heads + head) * D;
}

struct Tile {
  HeadGroup group;
  int first_row, rows;                 // of the group; rows that exist, at most 128
  int first_position, last_position;   // of the rows
  int pages;                           // that any row sees
  int first_candidate, end_candidate;  // candidates; equal where there are none

  __device__ int mean_blocks() const {
    return group.means && first_candidate < end_candidate ? ceil_blocks(end_candidate) - first_candidate / kBlockKeys : 0;
  }
  __device__ static int ceil_blocks(int pages) { return (pages + kBlockKeys - 1) / kBlockKeys; }
};

// Tiles of a group go from the last rows to the first: the longest first, neighbours together.
__device__ inline Tile find_tile(const SparsePlan& p, int index) {
  const HeadGroup* groups = p.args.groups;
  int low = 0, high = static_cast<int>(p.args.group_count) - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (groups[middle].first_tile <= index) low = middle;
    else high = middle - 1;
  }
  Tile t;
  t.group = groups[low];
  const int all_rows = static_cast<int>(p.args.tokens) * t.group.heads, tiles = (all_rows + kTileRows - 1) / kTileRows;
  t.first_row = (tiles - 1 - (index - t.group.first_tile)) * kTileRows;
  t.rows = min(kTileRows, all_rows - t.first_row);
  t.first_position = static_cast<int>(p.args.first_position) + t.first_row / t.group.heads;
  t.last_position = static_cast<int>(p.args.first_position) + (t.first_row + t.rows - 1) / t.group.heads;
  t.pages = t.last_position / kBlockKeys + 1;
  t.first_candidate = static_cast<int>((static_cast<int64_t>(t.group.sink) + kBlockKeys - 1) / kBlockKeys);
  // Without a window too the page of a tile's first row is no candidate: a row sees itself, and a tile visits something.
  t.end_candidate = max(t.first_candidate, (t.first_position + 1 - min(max(t.group.window, 1), t.first_position + 1)) / kBlockKeys);
  return t;
}

// Pages whose bits are set, the last first.
class PageWalk {
 public:
  __device__ PageWalk(const uint32_t* bits, int pages) : bits_(bits), word_((pages + 31) / 32) {}
  __device__ int next() {
    while (left_ == 0) left_ = bits_[--word_];
    const int bit = 31 - __clz(static_cast<int>(left_));
    left_ ^= 1u << bit;
    return word_ * 32 + bit;
  }

 private:
  const uint32_t* bits_;
  int word_;
  uint32_t left_ = 0;
};

// Bits of the pages 32 * word .. + 31 that enter as means: candidates without a bit.
__device__ inline uint32_t mean_bits(const Tile& t, const uint32_t* bits, int word) {
  const int begin = max(t.first_candidate - word * 32, 0), end = min(t.end_candidate - word * 32, 32);
  if (begin >= end) return 0;
  const uint32_t below_end = end == 32 ? 0xffffffffu : (1u << end) - 1;
  return ~bits[word] & below_end & ~((1u << begin) - 1);
}

// Where 16 bytes of a row lie in a block of rows of D bf16 in shared memory: as in a page, which has 128.
template <int kRowCount = kBlockKeys>
__device__ inline uint32_t block_address(uint32_t block, int row, int chunk) {
  return block + chunk / 8 * (kRowCount * 128) + row * 128 + (((chunk % 8) ^ (row % 8)) << 4);
}
template <int D>
__device__ inline const __nv_bfloat16* page_block(const PagedKv& kv, int page, int kv_head) {
  return static_cast<const __nv_bfloat16*>(kv.pages[page]) + (kv.layer * kv.kv_heads + kv_head) * 2 * kPageTokens * D;
}
// K of the block of means; V lies behind it.
template <int D>
__device__ inline const __nv_bfloat16* mean_block(const SparsePlan& p, int block, int kv_head) {
  return p.means + (kv_head * p.mean_blocks + block) * 2 * kPageTokens * D;
}

// 128 of the mean keys from which masses are taken: page * means_of_page + i.
template <int D>
__device__ inline const __nv_bfloat16* weighed_block(const SparsePlan& p, int block, int kv_head) {
  if (p.mean_shift == 0) return mean_block<D>(p, block, kv_head);
  return p.fine_means + (static_cast<int64_t>(kv_head) * (p.mean_blocks << p.mean_shift) + block) * kPageTokens * D;
}

__device__ inline const float* gains_of(const SparsePlan& p, int kv_head) { return p.gains + kv_head * p.mean_blocks * kBlockKeys; }

// Starts copying a tile's queries, or kDims dimensions from `first` on, to a block in shared memory, zeros for rows that do not exist.
template <int D, int kDims = D>
__device__ inline void load_queries(const SparsePlan& p, const Tile& t, uint32_t to, int thread, int threads, int first = 0) {
  const auto* q = static_cast<const __nv_bfloat16*>(p.args.q);
  const auto copy = [&](int item) {
    const int row = item / (kDims / 8), chunk = item % (kDims / 8), at = t.first_row + row;
    const bool valid = row < t.rows;
    const int64_t offset = valid ? (static_cast<int64_t>(at / t.group.heads) * p.args.heads + t.group.first_head + at % t.group.heads) * D + first + chunk * 8 : 0;
    ptx::cp_async_16(block_address(to, row, chunk), q + offset, valid);
  };
  if constexpr (kDims == D) {
    for (int item = thread; item < kTileRows * (kDims / 8); item += threads) copy(item);
  } else {  // beside scores, which leave few registers
#pragma unroll 1
    for (int item = thread; item < kTileRows * (kDims / 8); item += threads) copy(item);
  }
}

}  // namespace longview::kernels
