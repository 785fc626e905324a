// Which keys attention is fixed on: sums of its squared weights, which attention itself never keeps.
#pragma once

#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "cpu/attention_tile.h"

namespace longview::cpu {

class AttentionFocus {
 public:
  AttentionFocus(const Kernels& kernels, Precision precision, ThreadPool& pool);

  // Adds, for each key 0 .. keys - 1, the squares of its softmax weights for all rows and heads of q [tokens, heads * head_dim], which
  // stand at first_position .. first_position + tokens - 1 and see everything up to themselves.
  void add(const float* q, int64_t tokens, int64_t heads, const CpuAttentionLayer& layer, const CpuKvStorage& storage, std::span<const int32_t> page_slots,
           int64_t first_position, int64_t keys);
  // What was added since the last call; zeros behind that.
  void take(std::span<float> out);

 private:
  struct Thread {
    Scratch tile, scores;
    std::vector<float> focus;
  };
  const Kernels& kernels_;
  const bool bf16_;
  ThreadPool& pool_;
  std::vector<Thread> threads_;
};

}  // namespace longview::cpu
