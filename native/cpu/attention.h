// Causal attention over KV pages by block-wise online softmax: never a matrix of all scores.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "base/thread_pool.h"
#include "cpu/attention_tile.h"
#include "cpu/kernels.h"
#include "cpu/kv_pages.h"
#include "cpu/scratch.h"

namespace longview::cpu {

class Attention {
 public:
  Attention(const Kernels& kernels, Precision precision, ThreadPool& pool);

  // q, out [tokens, heads * head_dim]; token t stands at first_position + t and sees everything up to itself that the layer lets it see.
  void run(const float* q, int64_t tokens, int64_t heads, const CpuAttentionLayer& layer, const CpuKvStorage& storage, std::span<const int32_t> page_slots,
           int64_t first_position, float* out);

 private:
  struct Job;
  struct Rows;
  void tile(const Job& job, int64_t item, int thread);
  Rows rows_of(const Job& job, int64_t item) const;

  const Kernels& kernels_;
  const bool bf16_;
  ThreadPool& pool_;
  std::vector<Scratch> scratch_;  // by thread
  Scratch partial_;               // outputs, maxima and sums of the parts of a split row
};

}  // namespace longview::cpu
