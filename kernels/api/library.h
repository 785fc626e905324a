// The one symbol of longview_cuda.so: a table of everything that it offers.
#pragma once

#include "kernels/api/attention.h"
#include "kernels/api/cache.h"
#include "kernels/api/elementwise.h"
#include "kernels/api/experts.h"
#include "kernels/api/focus.h"
#include "kernels/api/gemm.h"
#include "kernels/api/recurrent.h"
#include "kernels/api/runtime.h"
#include "kernels/api/sparse.h"

namespace longview::kernels {

// Raised when a struct or a function of this folder changes: an addon and a library of different builds must not meet.
constexpr int32_t kLibraryVersion = 20;

struct Library {
  int32_t version;

  decltype(&kernels::device_count) device_count;
  decltype(&kernels::device_properties) device_properties;
  decltype(&kernels::open_device) open_device;
  decltype(&kernels::close_stream) close_stream;
  decltype(&kernels::status_text) status_text;
  decltype(&kernels::allocate) allocate;
  decltype(&kernels::release) release;
  decltype(&kernels::allocate_host) allocate_host;
  decltype(&kernels::release_host) release_host;
  decltype(&kernels::copy_to_device) copy_to_device;
  decltype(&kernels::copy_to_host) copy_to_host;
  decltype(&kernels::copy_on_device) copy_on_device;
  decltype(&kernels::copy_rows_on_device) copy_rows_on_device;
  decltype(&kernels::fill) fill;
  decltype(&kernels::synchronize) synchronize;
  decltype(&kernels::begin_recording) begin_recording;
  decltype(&kernels::end_recording) end_recording;
  decltype(&kernels::launch_graph) launch_graph;
  decltype(&kernels::release_graph) release_graph;
  decltype(&kernels::create_event) create_event;
  decltype(&kernels::destroy_event) destroy_event;
  decltype(&kernels::record_event) record_event;
  decltype(&kernels::elapsed_ms) elapsed_ms;

  decltype(&kernels::launch_embed) embed;
  decltype(&kernels::launch_rms_norm) rms_norm;
  decltype(&kernels::launch_rms_norm_heads) rms_norm_heads;
  decltype(&kernels::launch_scale_queries) scale_queries;
  decltype(&kernels::launch_gate_mul) gate_mul;
  decltype(&kernels::launch_add_normed) add_normed;
  decltype(&kernels::launch_sigmoid_mul) sigmoid_mul;
  decltype(&kernels::launch_split_heads) split_heads;
  decltype(&kernels::launch_scale_rows) scale_rows;
  decltype(&kernels::launch_quantize_rows) quantize_rows;
  decltype(&kernels::launch_gate_mul_quantize) gate_mul_quantize;
  decltype(&kernels::launch_add) add;
  decltype(&kernels::launch_largest) largest;
  decltype(&kernels::draw_weights) draw_weights;
  decltype(&kernels::launch_draw) draw;
  decltype(&kernels::launch_rope_table) rope_table;
  decltype(&kernels::launch_rope_append) rope_append;
  decltype(&kernels::launch_expand_pages) expand_pages;
  decltype(&kernels::attention_appends) attention_appends;
  decltype(&kernels::attention_multiplies_e4m3) attention_multiplies_e4m3;
  decltype(&kernels::attention_workspace_floats) attention_workspace_floats;
  decltype(&kernels::launch_attention) attention;
  decltype(&kernels::sparse_multiplies_e4m3) sparse_multiplies_e4m3;
  decltype(&kernels::launch_sparse_index) sparse_index;
  decltype(&kernels::launch_sparse_attention) sparse_attention;
  decltype(&kernels::launch_sparse_coverage) sparse_coverage;
  decltype(&kernels::launch_sparse_stand_ins) sparse_stand_ins;
  decltype(&kernels::launch_focus) focus;
  decltype(&kernels::launch_gemm) gemm;
  decltype(&kernels::launch_matvec) matvec;
  decltype(&kernels::launch_matvec_row) matvec_row;
  decltype(&kernels::launch_dequantize) dequantize;
  decltype(&kernels::launch_choose_experts) choose_experts;
  decltype(&kernels::launch_group_experts) group_experts;
  decltype(&kernels::launch_gather_rows) gather_rows;
  decltype(&kernels::launch_activate_experts) activate_experts;
  decltype(&kernels::launch_combine_experts) combine_experts;
  decltype(&kernels::launch_expert_gates) expert_gates;
  decltype(&kernels::launch_expert_downs) expert_downs;
  decltype(&kernels::launch_delta_net) delta_net;
};

constexpr const char* kLibrarySymbol = "longview_kernels";
extern "C" const Library* longview_kernels();

}  // namespace longview::kernels
