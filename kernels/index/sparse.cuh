// The kernels of the architectures behind kernels/api/sparse.h; the arguments have been checked.
#pragma once

#include "kernels/index/tile.cuh"

namespace longview::kernels {

Status launch_index_sm80(const SparsePlan& plan, Stream stream);
Status launch_index_sm90(const SparsePlan& plan, Stream stream);
Status launch_coverage_sm80(const SparsePlan& plan, Stream stream);
Status launch_coverage_sm90(const SparsePlan& plan, Stream stream);
Status launch_coverage_e4m3_sm90(const SparsePlan& plan, Stream stream);
// Of KV heads first_kv_head .. + count - 1.
Status launch_probe_weights_sm80(const SparsePlan& plan, int64_t first_kv_head, int64_t count, Stream stream);
Status launch_probe_weights_sm90(const SparsePlan& plan, int64_t first_kv_head, int64_t count, Stream stream);
Status launch_probe_weights_e4m3_sm90(const SparsePlan& plan, int64_t first_kv_head, int64_t count, Stream stream);
Status launch_stand_ins(const SparsePlan& plan, int64_t first_kv_head, int64_t count, Stream stream);
// kernels/attention
Status launch_sparse_attention_sm80(const SparsePlan& plan, Stream stream);
Status launch_sparse_attention_sm90(const SparsePlan& plan, Stream stream);

}  // namespace longview::kernels
