#include "kernels/api/library.h"

namespace longview::kernels {

extern "C" __attribute__((visibility("default"))) const Library* longview_kernels() {
  static const Library library = {
      kLibraryVersion,
      device_count,
      device_properties,
      open_device,
      close_stream,
      status_text,
      allocate,
      release,
      allocate_host,
      release_host,
      copy_to_device,
      copy_to_host,
      copy_on_device,
      copy_rows_on_device,
      fill,
      synchronize,
      begin_recording,
      end_recording,
      launch_graph,
      release_graph,
      create_event,
      destroy_event,
      record_event,
      elapsed_ms,
      launch_embed,
      launch_rms_norm,
      launch_silu_mul,
      launch_quantize_rows,
      launch_silu_mul_quantize,
      launch_add,
      launch_largest,
      launch_rope_table,
      launch_rope_append,
      launch_expand_pages,
      attention_multiplies_e4m3,
      attention_workspace_floats,
      launch_attention,
      sparse_multiplies_e4m3,
      launch_sparse_index,
      launch_sparse_attention,
      launch_sparse_coverage,
      launch_sparse_stand_ins,
      launch_focus,
      launch_gemm,
      launch_matvec,
      launch_matvec_row,
      launch_dequantize,
  };
  return &library;
}

}  // namespace longview::kernels
