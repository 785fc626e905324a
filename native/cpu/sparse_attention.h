// Sparse attention on the CPU: the heads of a layer by their plans (sparse/pattern.h), over KV pages with means. Which keys
// a tile visits is said in native/sparse, one file a pattern; here the scores are made and the keys visited.
#pragma once

#include <vector>

#include "cpu/attention_tile.h"
#include "cpu/block_means.h"
#include "cpu/mass_samples.h"
#include "base/thread_pool.h"
#include "sparse/key_set.h"
#include "sparse/vertical_slash.h"

namespace longview::cpu {

// Tokens of a block of means, and so the grain of adaptive selection.
constexpr int64_t kMeanTokens = 32;

class SparseAttention {
 public:
  SparseAttention(const Kernels& kernels, Precision precision, ThreadPool& pool);

  // As Attention::run; plans [heads]. Pages must keep means of kMeanTokens.
  void run(const float* q, int64_t tokens, int64_t heads, const CpuAttentionLayer& layer, const CpuKvStorage& storage, std::span<const int32_t> page_slots,
           int64_t first_position, std::span<const HeadPlan> plans, float* out);
  // What was visited since the last call, [layers * heads].
  void take_coverage(std::span<HeadCoverage> out);

 private:
  struct Job;
  struct Item;  // adjacent heads of a KV group with one plan, and a tile of positions
  struct Thread {
    Scratch tile, probed, means, index, probe;
    std::vector<uint8_t> keep;
    std::vector<int32_t> kept;
    std::vector<HeadCoverage> coverage;  // [heads]
  };
  // The probe's view of a tile's choice: what each key was visited as.
  struct Choice;

  void index_head(const Job& job, int64_t head, Thread& thread);
  void run_item(const Job& job, const Item& item, Thread& thread);
  void visit(AttentionTile& tile, const sparse::KeySet& keys) const;
  void adaptive(const Job& job, const HeadPlan& plan, AttentionTile& tile, Choice& choice, Thread& thread);
  sparse::KeySet block_sparse(const Job& job, const HeadPlan& plan, const AttentionTile& tile) const;
  void count(const Item& item, int64_t first_position, const Choice& choice, Thread& thread) const;
  // Of the tile's last position in dense attention, the mass that lies where the tile puts it.
  void add_covered_by_keys(AttentionTile& tile, const sparse::KeySet& keys, Thread& thread, std::span<HeadCoverage> heads) const;
  double covered_by_blocks(AttentionTile& tile, const Choice& choice) const;
  double share_of(AttentionTile& tile, int64_t row, float maximum, float sum) const;

  const Kernels& kernels_;
  const bool bf16_;
  ThreadPool& pool_;
  std::vector<Thread> threads_;
  std::vector<GatheredMeans> means_;                    // [kv_heads]
  MassSamples samples_;
  std::vector<sparse::VerticalSlashIndex> indices_;     // [heads]
  std::vector<HeadCoverage> coverage_;                  // [layers * heads]
};

}  // namespace longview::cpu
