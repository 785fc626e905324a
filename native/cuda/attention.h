// A layer's attention on the GPU, read densely: keys and values to their pages, and what queries see of them.
#pragma once

#include <array>

#include "cuda/decode_step.h"
#include "cuda/page_tables.h"
#include "cuda/rope.h"

namespace longview::cuda {

class Attention {
 public:
  Attention(const Device& device, PageTables& tables, const DecodeStep& step) : device_(device), tables_(tables), step_(step) {}

  // As Backend has them.
  void rope_and_append_kv(Activation q, Activation k, Activation v, DeviceRope& rope, const KvShape& shape, int64_t layer, const KvPages& pages, int64_t first_position);
  void attend(Activation q, const KvShape& shape, int64_t heads, const AttentionLayer& layer, const KvPages& pages, int64_t first_position, Activation out);
  // The same of one token, where a launch or two do it; false where they do not, then nothing was done. `backend` prepares its heads.
  bool append_and_attend(Backend& backend, Activation q, Activation k, Activation v, const HeadSteps& steps, DeviceRope& rope, const KvShape& shape, int64_t heads, const AttentionLayer& layer, const KvPages& pages,
                         int64_t position, Activation out);

  // Rotated queries, with heads as wide as the pages'. Those of another width lie where rotation put them; `q` may be some of their rows.
  const void* page_wide(Activation q, const KvShape& shape) const;
  // Calls work(queries, results) with rows as wide as the pages'. Results of heads of another width come back narrowed.
  template <typename Work>
  void with_page_width(Activation q, const KvShape& shape, int64_t heads, Activation out, const Work& work) {
    const int64_t d = page_dim(shape.head_dim);
    if (d == shape.head_dim) return work(page_wide(q, shape), out.data);
    results_.grow(device_, q.rows * heads * d * 2, "the results of attention");
    work(page_wide(q, shape), results_.as());
    narrow(out, shape.head_dim, q.rows * heads);
  }

  // Takes room for a token that sees everything, and says how many floats: recorded work depends on that, and on where the buffers lie.
  int64_t reserve(const TokenStep& token);
  std::array<const void*, 3> buffers() const { return {partial_.as(), queries_.as(), results_.as()}; }

 private:
  // Of `tokens` tokens, without queries and results.
  kernels::AttentionArgs args_of(const KvShape& shape, int64_t heads, const AttentionLayer& layer, const KvPages& pages, int64_t tokens, int64_t first_position);
  void reserve(const kernels::AttentionArgs& args);
  void launch(kernels::AttentionArgs& args);
  void narrow(Activation out, int64_t head_dim, int64_t heads);
  void check(kernels::Status status, const char* what) const { device_.check(status, what); }

  const Device& device_;
  PageTables& tables_;
  const DecodeStep& step_;
  Buffer partial_;             // what is kept of parts of the keys
  Buffer queries_, results_;   // of heads of another width than the pages'
  const char* widened_ = nullptr;  // the queries that queries_ has
};

}  // namespace longview::cuda
