// The means of a head's K and V over blocks of tokens, and the spread of K: made as a block is filled, gathered from the pages for
// a chunk.
#pragma once

#include <vector>

#include "cpu/attention_tile.h"
#include "cpu/scratch.h"

namespace longview::cpu {

// Writes the means and the spread of block `block` (absolute) of one layer and KV head. k, v: float rows of the chunk, from
// first_position on and `stride` apart; tokens of the block before it are read back from the page.
void make_block_means(const HeadPages& pages, int64_t block, const float* k, const float* v, int64_t stride, int64_t first_position);

// One head's means side by side, as right-hand matrices of kernels.h: K [d/2][blocks] pairs of dims and V [blocks/2][width] pairs
// of blocks in bf16, or K [d][blocks] and V [blocks][width] in float32. V is multiplied by the tokens of a block: a
// mean stands for that many equal keys.
class GatheredMeans {
 public:
  // `bf16`: for products in bf16; else widened to float32 where the pages hold bf16.
  void gather(const Kernels& kernels, bool bf16, const HeadPages& pages, int64_t blocks);

  int64_t ld() const { return ld_; }  // blocks, with padding for whole steps of the products
  const void* keys(int64_t first_block) const;
  const void* values(int64_t first_block) const;  // first_block even
  std::span<const float> key_spreads() const { return spreads_; }  // [blocks]: variance of the block's keys, mean over the dims

 private:
  bool bf16_ = false;
  int64_t ld_ = 0, width_ = 0;
  Scratch keys_, values_, pairs_;
  std::vector<float> spreads_;
  const void *key_data_ = nullptr, *value_data_ = nullptr;
};

}  // namespace longview::cpu
