// Block-sparse (MInference): for each 64 tokens of a head the key blocks of 64 whose mean key scores best with the mean query.
// In float32: products in bf16 would choose others.
#pragma once

#include "kernels/index/select.cuh"
#include "kernels/index/tile.cuh"

namespace longview::kernels {

// Mean keys of half pages, float [KV heads of the batch, D, 2 * pages]: neighbouring blocks lie together. A thread for each half and dimension.
static __global__ void pool_keys_kernel(const SparsePlan p) {
  const int d = static_cast<int>(p.args.kv.head_dim), half = threadIdx.x / d, i = threadIdx.x % d, page = static_cast<int>(blockIdx.x), kv_head = p.first_pooled + static_cast<int>(blockIdx.y);
  const auto* keys = static_cast<const __nv_bfloat16*>(p.args.kv.pages[page]) + (p.args.kv.layer * p.args.kv.kv_heads + kv_head) * 2 * kPageTokens * d;
  float sum = 0;
  for (int token = half * kSlashTokens; token < (half + 1) * kSlashTokens; ++token) sum += __bfloat162float(keys[page_offset(token, i)]);
  p.pooled[(static_cast<int64_t>(blockIdx.y) * d + i) * 2 * p.pages + 2 * page + half] = sum / kSlashTokens;
}

static inline Status launch_pool_keys(const SparsePlan& p, Stream stream) {
  pool_keys_kernel<<<dim3(static_cast<unsigned>(p.pages), static_cast<unsigned>(p.pooled_heads)), static_cast<unsigned>(2 * p.args.kv.head_dim), 0, cuda(stream)>>>(p);
  return launched();
}

// Words of shared memory that choose_blocks needs. No static ones: what a kernel has of those is not left for its dynamic ones.
constexpr int kChosenWords = kMostSparsePages / 32, kHistogramWords = 256;
template <int D>
constexpr int64_t choice_words(int64_t pages) {
  return kChosenWords + D + kHistogramWords + 2 * pages;
}

// Sets at the beginning of `scratch`, [words], the pages that hold a block which the tile's first or last 64 tokens choose. The
// group has one head.
template <int D>
__device__ void choose_blocks(const SparsePlan& p, const Tile& t, uint32_t* scratch) {
  uint32_t *chosen = scratch, *scores = scratch + kChosenWords + D + kHistogramWords;
  auto* query = reinterpret_cast<float*>(scratch + kChosenWords);
  auto* histogram = reinterpret_cast<int*>(scratch + kChosenWords + D);
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < p.words; i += threads) chosen[i] = 0;
  for (int begin = 0; begin < t.rows; begin += kSlashTokens) {
    const int rows = min(kSlashTokens, t.rows - begin), first = t.first_position + begin, blocks = first / kSlashTokens;
    const int own = (first + rows + kSlashTokens - 1) / kSlashTokens - blocks;  // always visited, and counted
    __syncthreads();
    if (thread < D) {
      const auto* q = static_cast<const __nv_bfloat16*>(p.args.q) + (static_cast<int64_t>(t.first_row + begin) * p.args.heads + t.group.first_head) * D + thread;
      float sum = 0;
      for (int row = 0; row < rows; ++row) sum += __bfloat162float(q[static_cast<int64_t>(row) * p.args.heads * D]);
      query[thread] = sum / static_cast<float>(rows);
    }
    __syncthreads();
    const float* keys = p.pooled + static_cast<int64_t>(t.group.kv_head - p.first_pooled) * D * 2 * p.pages;
    for (int block = thread; block < blocks; block += threads) {
      float sum = 0;
#pragma unroll 16
      for (int i = 0; i < D; ++i) sum = fmaf(query[i], keys[2 * p.pages * i + block], sum);
      scores[block] = ordered_bits(sum);
    }
    __syncthreads();
    const auto score = [&](int i) { return scores[i]; };
    const Cut cut = largest_cut(score, blocks, max(t.group.blocks - own, 0), histogram);
    for (int block = thread; block < blocks; block += threads)
      if (cut.keeps(scores[block], block)) atomicOr(&chosen[block / 64], 1u << block / 2 % 32);
  }
  __syncthreads();
}

}  // namespace longview::kernels
