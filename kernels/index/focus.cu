// Checks of a call for the focus, and the choice of kernels.
#include "kernels/index/focus.cuh"

#include <cmath>

namespace longview::kernels {

Status launch_focus(const FocusArgs& args, Stream stream) {
  const PagedKv& kv = args.kv;
  constexpr int64_t kMostTokens = int64_t{1} << 30;
  if (args.tokens <= 0 || args.tokens > kMostTokens || args.first_position < 0 || args.first_position > kMostTokens - args.tokens) return kInvalidShape;
  if (kv.kv_heads <= 0 || args.heads <= 0 || args.heads % kv.kv_heads != 0 || args.heads > 4096 || args.tokens * args.heads > kLargestGrid) return kInvalidShape;
  if (kv.head_dim != 64 && kv.head_dim != 128 && kv.head_dim != 256) return kInvalidShape;
  if (kv.format != PageFormat::kBFloat16) return kUnsupportedType;
  if (args.keys < 0 || args.keys > args.first_position + args.tokens || !args.focus || !args.workspace) return kInvalidShape;
  if (!aligned(args.q) || !aligned(args.workspace)) return kInvalidAlignment;
  const FocusPlan p{args, static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(kv.head_dim))), static_cast<int>(key_parts(ceil_div(args.first_position + args.tokens, kPageTokens)))};
  return on_sm90(args.architecture) ? launch_focus_sm90(p, stream) : launch_focus_sm80(p, stream);
}

}  // namespace longview::kernels
