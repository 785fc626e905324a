// Rotary positions, fused with writing K and V into their pages.
#include "kernels/cache/page_means.cuh"
#include "kernels/common/bf16.cuh"
#include "kernels/common/launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = 256;

// In double: a position of a million times a frequency leaves float32 few digits of a turn.
__global__ void __launch_bounds__(kThreads) rope_table_kernel(const RopeTableArgs p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= p.tokens * p.half) return;
  double sine, cosine;
  sincos(static_cast<double>(p.first_position + i / p.half) * p.inverse_frequencies[i % p.half], &sine, &cosine);
  p.cosine[i] = static_cast<float>(cosine * p.scale);
  p.sine[i] = static_cast<float>(sine * p.scale);
}

// A token a block. Threads go over the token's pairs of q, then of k; v is copied.
__global__ void __launch_bounds__(kThreads) rope_append_kernel(const RopeAppendArgs p) {
  const int64_t t = blockIdx.x, position = p.first_position + t;
  const int d = static_cast<int>(p.kv.head_dim), own = static_cast<int>(p.head_dim), half = static_cast<int>(p.half), pairs = own / 2;
  const int heads = static_cast<int>(p.heads), kv_heads = static_cast<int>(p.kv.kv_heads);
  const float* cosine = p.cosine + t * half;
  const float* sine = p.sine + t * half;
  const float grow = own == d ? 1.0f : sqrtf(static_cast<float>(d) / static_cast<float>(own));
  const int token = static_cast<int>(position % kPageTokens);
  auto* page = static_cast<__nv_bfloat16*>(p.kv.pages[position / kPageTokens]) + p.kv.layer * kv_heads * 2 * kPageTokens * d;
  const auto* q = static_cast<const __nv_bfloat16*>(p.q) + t * heads * own;
  auto* rotated = static_cast<__nv_bfloat16*>(p.rotated) + t * heads * d;
  const auto* k = static_cast<const __nv_bfloat16*>(p.k) + t * kv_heads * own;
  const auto* v = static_cast<const __nv_bfloat16*>(p.v) + t * kv_heads * own;

  for (int item = threadIdx.x; item < (heads + kv_heads) * pairs; item += kThreads) {
    const int head = item / pairs, i = item % pairs;
    const bool is_query = head < heads;
    const __nv_bfloat16* from = is_query ? q + head * own : k + (head - heads) * own;
    __nv_bfloat16* to = is_query ? rotated + head * d : page + static_cast<int64_t>(head - heads) * 2 * kPageTokens * d;
    const float factor = is_query ? grow : 1.0f;
    const auto write = [&](int dimension, float value) { to[is_query ? dimension : page_offset(token, dimension)] = __float2bfloat16(value * factor); };
    if (i < half) {
      const int a = p.adjacent ? 2 * i : i, b = p.adjacent ? 2 * i + 1 : i + half;
      const float x = __bfloat162float(from[a]), y = __bfloat162float(from[b]);
      write(a, x * cosine[i] - y * sine[i]);
      write(b, x * sine[i] + y * cosine[i]);
    } else {  // dimensions behind the rotated ones
      write(2 * i, __bfloat162float(from[2 * i]));
      write(2 * i + 1, __bfloat162float(from[2 * i + 1]));
    }
  }
  // Zeros behind the queries; those of the pages are there since the page is.
  for (int item = threadIdx.x; item < heads * (d - own); item += kThreads)
    rotated[item / (d - own) * d + own + item % (d - own)] = __float2bfloat16(0.0f);
  for (int item = threadIdx.x; item < kv_heads * pairs; item += kThreads) {
    const int head = item / pairs, i = item % pairs;
    __nv_bfloat16* to = page + (static_cast<int64_t>(head) * 2 + 1) * kPageTokens * d;
    *reinterpret_cast<uint32_t*>(to + page_offset(token, 2 * i)) = reinterpret_cast<const uint32_t*>(v + head * own)[i];
  }
}

}  // namespace

Status launch_rope_table(const RopeTableArgs& args, Stream stream) {
  if (args.tokens <= 0 || args.half <= 0 || args.first_position < 0) return kInvalidShape;
  const int64_t blocks = ceil_div(args.tokens * args.half, kThreads);
  if (blocks > kLargestGrid) return kInvalidShape;
  rope_table_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, cuda(stream)>>>(args);
  return launched();
}

Status launch_rope_append(const RopeAppendArgs& args, Stream stream) {
  const int64_t d = args.kv.head_dim;
  if (args.tokens <= 0 || args.tokens > kLargestGrid || args.first_position < 0) return kInvalidShape;
  if (d <= 0 || d > 1024 || d % 64 != 0 || args.half <= 0 || 2 * args.half > args.head_dim) return kInvalidShape;
  if (args.head_dim > d || args.head_dim % 2 != 0 || (args.head_dim != d && args.rotated == args.q)) return kInvalidShape;
  if (args.heads <= 0 || args.kv.kv_heads <= 0 || args.heads > 4096 || args.kv.kv_heads > args.heads) return kInvalidShape;
  if (args.kv.layers != 0 && (args.kv.layer < 0 || args.kv.layer >= args.kv.layers)) return kInvalidShape;
  rope_append_kernel<<<static_cast<unsigned>(args.tokens), kThreads, 0, cuda(stream)>>>(args);
  if (args.kv.layers == 0) return launched();
  if (const Status status = launched()) return status;
  const int64_t first_page = args.first_position / kPageTokens;
  return launch_page_means(args.kv, first_page, (args.first_position + args.tokens) / kPageTokens - first_page, stream);
}

}  // namespace longview::kernels
