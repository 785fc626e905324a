// Rotary positions, fused with writing K and V into their pages.
#include "kernels/cache/page_means.cuh"
#include "kernels/cache/rope_append.cuh"
#include "kernels/cache/rotate.cuh"
#include "kernels/common/bf16.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = 256;

// In double: a position of a million times a frequency leaves float32 few digits of a turn.
__global__ void __launch_bounds__(kThreads) rope_table_kernel(const RopeTableArgs p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= p.tokens * p.half) return;
  const int64_t first = p.position ? *p.position : p.first_position;
  double sine, cosine;
  sincos(static_cast<double>(first + i / p.half) * p.inverse_frequencies[i % p.half], &sine, &cosine);
  p.cosine[i] = static_cast<float>(cosine * p.scale);
  p.sine[i] = static_cast<float>(sine * p.scale);
}

// A token a row of blocks. Threads go over the token's pairs of q, then of k; v is copied.
__global__ void __launch_bounds__(kThreads) rope_append_kernel(const RopeAppendArgs p) {
  const int64_t t = blockIdx.x, position = p.position ? *p.position : p.first_position + t;
  const int begin = static_cast<int>(blockIdx.y) * kThreads + static_cast<int>(threadIdx.x), stride = static_cast<int>(gridDim.y) * kThreads;
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
  ptx::start_dependents();  // decode attention brings earlier keys while the product in front ends
  ptx::wait_for_previous();

  for (int item = begin; item < (heads + kv_heads) * pairs; item += stride) {
    const int head = item / pairs, i = item % pairs;
    const bool is_query = head < heads;
    const __nv_bfloat16* from = is_query ? q + head * own : k + (head - heads) * own;
    __nv_bfloat16* to = is_query ? rotated + head * d : page + static_cast<int64_t>(head - heads) * 2 * kPageTokens * d;
    const float factor = is_query ? grow : 1.0f;
    const auto write = [&](int dimension, float value) { to[is_query ? dimension : page_offset(token, dimension)] = __float2bfloat16(value * factor); };
    if (i < half) {
      const int a = p.adjacent ? 2 * i : i, b = p.adjacent ? 2 * i + 1 : i + half;
      const float x = __bfloat162float(from[a]), y = __bfloat162float(from[b]);
      write(a, rotated_low(x, y, cosine[i], sine[i]));
      write(b, rotated_high(x, y, cosine[i], sine[i]));
    } else {  // dimensions behind the rotated ones
      write(2 * i, __bfloat162float(from[2 * i]));
      write(2 * i + 1, __bfloat162float(from[2 * i + 1]));
    }
  }
  // Zeros behind the queries; those of the pages are there since the page is.
  for (int item = begin; item < heads * (d - own); item += stride)
    rotated[item / (d - own) * d + own + item % (d - own)] = __float2bfloat16(0.0f);
  for (int item = begin; item < kv_heads * pairs; item += stride) {
    const int head = item / pairs, i = item % pairs;
    __nv_bfloat16* to = page + (static_cast<int64_t>(head) * 2 + 1) * kPageTokens * d;
    *reinterpret_cast<uint32_t*>(to + page_offset(token, 2 * i)) = reinterpret_cast<const uint32_t*>(v + head * own)[i];
  }
}

constexpr int kTokensOfBlock = 4, kMostThreads = 512;  // the reads of a block's tokens are under way together

// The same where heads are as wide as the pages and all of a head is rotated by halves: eight pairs a thread, of several tokens.
__global__ void __launch_bounds__(kMostThreads, 2) rope_append_whole_kernel(const RopeAppendArgs p) {
  const int d = static_cast<int>(p.kv.head_dim), half = d / 2, groups = half / 8;
  const int heads = static_cast<int>(p.heads), kv_heads = static_cast<int>(p.kv.kv_heads);
  const int rotated = (heads + kv_heads) * groups, items = rotated + kv_heads * d / 8;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTokensOfBlock;
  const int count = static_cast<int>(min(static_cast<int64_t>(kTokensOfBlock), p.tokens - first));
  // Of K (is_value 0) or V of the KV head, at a dimension.
  const auto place = [&](int64_t t, int head, int is_value, int dimension) {
    const int64_t position = p.first_position + t;
    auto* page = static_cast<__nv_bfloat16*>(p.kv.pages[position / kPageTokens]);
    return reinterpret_cast<uint4*>(page + ((p.kv.layer * kv_heads + head) * 2 + is_value) * kPageTokens * d + page_offset(position % kPageTokens, dimension));
  };
  for (int item = threadIdx.x; item < items; item += blockDim.x) {
    if (item >= rotated) {
      const int head = (item - rotated) / (d / 8), dimension = (item - rotated) % (d / 8) * 8;
#pragma unroll
      for (int i = 0; i < kTokensOfBlock; ++i)
        if (i < count) *place(first + i, head, 1, dimension) = *reinterpret_cast<const uint4*>(static_cast<const __nv_bfloat16*>(p.v) + ((first + i) * kv_heads + head) * d + dimension);
      continue;
    }
    const bool is_query = item < heads * groups;
    const int head = item / groups - (is_query ? 0 : heads), at = item % groups * 8, stride = (is_query ? heads : kv_heads) * d;
    const int64_t begin = first * stride + head * d + at;
    const auto* from = static_cast<const __nv_bfloat16*>(is_query ? p.q : p.k) + begin;
    uint4 low[kTokensOfBlock], high[kTokensOfBlock];
#pragma unroll
    for (int i = 0; i < kTokensOfBlock; ++i) {
      if (i >= count) continue;
      low[i] = *reinterpret_cast<const uint4*>(from + i * stride);
      high[i] = *reinterpret_cast<const uint4*>(from + i * stride + half);
    }
#pragma unroll
    for (int i = 0; i < kTokensOfBlock; ++i) {
      if (i >= count) continue;
      const auto* cosine = reinterpret_cast<const float4*>(p.cosine + (first + i) * half + at);
      const auto* sine = reinterpret_cast<const float4*>(p.sine + (first + i) * half + at);
      float x[8], y[8];
      unpack_bf16x8(low[i], x);
      unpack_bf16x8(high[i], y);
#pragma unroll
      for (int four = 0; four < 2; ++four) {
        const float4 c4 = cosine[four], s4 = sine[four];
        const float c[4] = {c4.x, c4.y, c4.z, c4.w}, s[4] = {s4.x, s4.y, s4.z, s4.w};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float a = x[4 * four + j], b = y[4 * four + j];
          x[4 * four + j] = rotated_low(a, b, c[j], s[j]);
          y[4 * four + j] = rotated_high(a, b, c[j], s[j]);
        }
      }
      auto* query = reinterpret_cast<uint4*>(static_cast<__nv_bfloat16*>(p.rotated) + begin + i * stride);
      *(is_query ? query : place(first + i, head, 0, at)) = {pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7])};
      *(is_query ? query + groups : place(first + i, head, 0, at + half)) = {pack_bf16(y[0], y[1]), pack_bf16(y[2], y[3]), pack_bf16(y[4], y[5]), pack_bf16(y[6], y[7])};
    }
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
  if (args.tokens <= 0 || args.tokens > kLargestGrid || args.first_position < 0 || (args.position && args.tokens != 1)) return kInvalidShape;
  if (d <= 0 || d > 1024 || d % 64 != 0 || args.half <= 0 || 2 * args.half > args.head_dim) return kInvalidShape;
  if (args.head_dim > d || args.head_dim % 2 != 0 || (args.head_dim != d && args.rotated == args.q)) return kInvalidShape;
  if (args.heads <= 0 || args.kv.kv_heads <= 0 || args.heads > 4096 || args.kv.kv_heads > args.heads) return kInvalidShape;
  if (args.kv.layers != 0 && (args.kv.layer < 0 || args.kv.layer >= args.kv.layers)) return kInvalidShape;
  const bool wide = args.kv.format == PageFormat::kBFloat16;
  if (!wide && d != 64 && d != 128) return kInvalidShape;
  const bool whole = wide && args.head_dim == d && 2 * args.half == d && !args.adjacent && args.tokens >= kTokensOfBlock && aligned(args.q) && aligned(args.rotated) && aligned(args.k) && aligned(args.v) &&
                     aligned(args.cosine) && aligned(args.sine);
  const int64_t items = (args.heads + args.kv.kv_heads) * (d / 16) + args.kv.kv_heads * (d / 8);
  if (whole) rope_append_whole_kernel<<<static_cast<unsigned>(ceil_div(args.tokens, kTokensOfBlock)), static_cast<unsigned>(std::min<int64_t>(ceil_div(items, 32) * 32, kMostThreads)), 0, cuda(stream)>>>(args);
  const dim3 grid(static_cast<unsigned>(args.tokens), args.tokens < kTokensOfBlock ? static_cast<unsigned>(ceil_div((args.heads + args.kv.kv_heads) * args.head_dim / 2, kThreads)) : 1u);
  if (!wide)
    for (const void* pointer : {args.q, static_cast<const void*>(args.rotated), args.k, args.v, static_cast<const void*>(args.cosine), static_cast<const void*>(args.sine)})
      if (!aligned(pointer)) return kInvalidAlignment;
  if (const Status status = args.kv.format == PageFormat::kQ8 ? launch_rope_append_q8(args, stream) : !wide ? launch_rope_append_e4m3(args, stream) : whole ? launched() : launch_dependent(rope_append_kernel, grid, kThreads, 0, stream, args)) return status;
  return launch_page_means(args.kv, args.first_position, args.tokens, stream);
}

}  // namespace longview::kernels
