#include "cuda/attention.h"

#include "cuda/weights.h"

namespace longview::cuda {
namespace {

// Rows (tokens, heads of a KV head) that read 8-bit pages as they are: each 16 of them read all pages once, which costs less than a copy
// in bf16 that is written and read again.
constexpr int64_t kDirectRows = 64;

}  // namespace

void Attention::rope_and_append_kv(Activation q, Activation k, Activation v, DeviceRope& rope, const KvShape& shape, int64_t layer, const KvPages& pages, int64_t first_position) {
  CudaRope& table = cuda(rope);
  table.reach(first_position, q.rows, step_.position());
  const int64_t heads = q.cols / shape.head_dim, d = page_dim(shape.head_dim);
  if (d != shape.head_dim) queries_.grow(device_, q.rows * heads * d * 2, "the queries");
  void* rotated = d == shape.head_dim ? q.data : queries_.as();
  widened_ = static_cast<const char*>(q.data);
  check(device_.library().rope_append({q.data, rotated, k.data, v.data, table.cosine(), table.sine(), tables_.paged(shape, layer, pages, first_position + q.rows), q.rows, heads, shape.head_dim, table.half(),
                                       first_position, table.config().pairing == RopePairing::kAdjacent, step_.position()},
                                      device_.stream()),
        "writing the KV state");
}

void Attention::attend(Activation q, const KvShape& shape, int64_t heads, const AttentionLayer& layer, const KvPages& pages, int64_t first_position, Activation out) {
  const int64_t end = first_position + q.rows;
  kernels::AttentionArgs args = args_of(shape, heads, layer, pages, q.rows, first_position);
  const bool direct = shape.format == KvFormat::kBFloat16 || q.rows == 1 || q.rows * heads / shape.kv_heads <= kDirectRows || device_.library().attention_multiplies_e4m3(args);
  if (!direct) args.kv = tables_.expanded(shape, layer.index, pages, end, first_seen(first_position, layer.span));
  with_page_width(q, shape, heads, out, [&](const void* queries, void* results) {
    args.q = queries;
    args.out = results;
    launch(args);
  });
}

bool Attention::append_and_attend(Backend& backend, Activation q, Activation k, Activation v, const HeadSteps& steps, DeviceRope& rope, const KvShape& shape, int64_t heads, const AttentionLayer& layer, const KvPages& pages,
                                  int64_t position, Activation out) {
  kernels::AttentionArgs args = args_of(shape, heads, layer, pages, 1, position);
  args.q = q.data;
  args.out = out.data;
  CudaRope& table = cuda(rope);
  const int64_t d = shape.head_dim, half = table.half();
  const bool halves = page_dim(d) == d && table.config().pairing == RopePairing::kHalfSplit;
  const bool appends = halves && 2 * half == d && !steps.both.data && device_.library().attention_appends(args);
  if (!appends && !(halves && half % (d / 32) == 0 && steps.q_norm && (!steps.both.data || kernels::attention_gates(args)))) return false;
  table.reach(position, 1, step_.position());
  if (appends) {
    backend.prepare_heads(q, k, steps, d);
    args.appended = {k.data, v.data, table.cosine(), table.sine()};
  } else {
    kernels::RopeAppendArgs heads_of_token{q.data, q.data, k.data, v.data, table.cosine(), table.sine(), args.kv, 1, heads, d, half, position, 0, step_.position()};
    heads_of_token.q_norm = cuda(*steps.q_norm).buffer->as<float>();
    heads_of_token.k_norm = cuda(*steps.k_norm).buffer->as<float>();
    heads_of_token.epsilon = steps.epsilon;
    if (const auto* both = static_cast<const uint16_t*>(steps.both.data)) {
      heads_of_token.q = both;
      args.gates = both + d;
      heads_of_token.q_stride = args.gate_stride = 2 * d;
    }
    check(device_.library().rope_append(heads_of_token, device_.stream()), "writing the KV state");
  }
  launch(args);
  return true;
}

const void* Attention::page_wide(Activation q, const KvShape& shape) const {
  const int64_t d = page_dim(shape.head_dim);
  if (d == shape.head_dim) return q.data;
  return queries_.as<char>() + (static_cast<const char*>(q.data) - widened_) / shape.head_dim * d;
}

int64_t Attention::reserve(const TokenStep& token) {
  const kernels::AttentionArgs args = args_of(token.shape, token.heads, {0}, token.pages, 1, token.position);
  reserve(args);
  return device_.library().attention_workspace_floats(args);
}

kernels::AttentionArgs Attention::args_of(const KvShape& shape, int64_t heads, const AttentionLayer& layer, const KvPages& pages, int64_t tokens, int64_t first_position) {
  kernels::AttentionArgs args{nullptr, nullptr, tables_.paged(shape, layer.index, pages, first_position + tokens), tokens, heads, first_position, device_.properties().multiprocessors, nullptr, 0, step_.position()};
  args.span = layer.span;
  args.sinks = floats(layer.sinks);
  return args;
}

// It expects zeros there and leaves them where it needs them.
void Attention::reserve(const kernels::AttentionArgs& args) {
  const int64_t bytes = device_.library().attention_workspace_floats(args) * 4;
  if (partial_.bytes() >= bytes) return;
  partial_.grow(device_, bytes, "partial results of attention");
  check(device_.library().fill(partial_.as(), 0, static_cast<size_t>(bytes), device_.stream()), "clearing partial results of attention");
}

void Attention::launch(kernels::AttentionArgs& args) {
  reserve(args);
  args.workspace = partial_.as<float>();
  check(device_.library().attention(args, device_.stream()), "attending");
}

void Attention::narrow(Activation out, int64_t head_dim, int64_t heads) {
  const auto bytes = [](int64_t dimensions) { return static_cast<size_t>(2 * dimensions); };
  check(device_.library().copy_rows_on_device(out.data, bytes(head_dim), results_.as(), bytes(page_dim(head_dim)), bytes(head_dim), static_cast<size_t>(heads), device_.stream()), "attending");
}

}  // namespace longview::cuda
