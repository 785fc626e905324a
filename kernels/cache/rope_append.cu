// Rotary positions, fused with writing K and V into their pages.
#include "kernels/cache/fault.cuh"
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

// Puts what stands for a fault in the place of a head of a token, by a warp. `keys`: the head's K block.
__device__ inline void hide_head(__nv_bfloat16* keys, int token, int d, int own) {
  __syncwarp();  // what other lanes wrote there comes first
  for (int i = static_cast<int>(threadIdx.x) % 32; i < own / 2; i += 32) {
    const int64_t offset = page_offset(token, 2 * i);
    *reinterpret_cast<uint32_t*>(keys + offset) = kNotNumbers;
    *reinterpret_cast<uint32_t*>(keys + kPageTokens * d + offset) = 0;
  }
}

// A token a row of blocks. Warps take 32 of its queries' pairs each, then a KV head.
__global__ void __launch_bounds__(kThreads, 5) rope_append_kernel(const RopeAppendArgs p) {
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

  const int query_units = (heads * pairs + 31) / 32, lane = begin % 32;
  for (int unit = begin / 32; unit < query_units + kv_heads; unit += stride / 32) {
    const bool is_query = unit < query_units;
    const int first = is_query ? unit * 32 + lane : lane, head = is_query ? first / pairs : unit - query_units;
    if (is_query && head >= heads) continue;
    const __nv_bfloat16* from = is_query ? q + head * own : k + head * own;
    __nv_bfloat16* to = is_query ? rotated + head * d : page + static_cast<int64_t>(head) * 2 * kPageTokens * d;
    const float factor = is_query ? grow : 1.0f;
    const auto write = [&](int dimension, float value) { to[is_query ? dimension : page_offset(token, dimension)] = __float2bfloat16(value * factor); };
    uint32_t faults = 0;
#pragma unroll 1
    for (int i = is_query ? first % pairs : lane; i < pairs; i += is_query ? pairs : 32) {
      if (i < half) {
        const int a = p.adjacent ? 2 * i : i, b = p.adjacent ? 2 * i + 1 : i + half;
        const float x = __bfloat162float(from[a]), y = __bfloat162float(from[b]);
        write(a, rotated_low(x, y, cosine[i], sine[i]));
        write(b, rotated_high(x, y, cosine[i], sine[i]));
      } else {  // dimensions behind the rotated ones
        write(2 * i, __bfloat162float(from[2 * i]));
        write(2 * i + 1, __bfloat162float(from[2 * i + 1]));
      }
      if (is_query) continue;
      const uint32_t value = reinterpret_cast<const uint32_t*>(v + head * own)[i];
      *reinterpret_cast<uint32_t*>(to + kPageTokens * d + page_offset(token, 2 * i)) = value;
      faults |= faults_of(value);
    }
    if (!is_query && __any_sync(0xffffffffu, faults != 0)) hide_head(to, token, d, own);
  }
  // Zeros behind the queries; those of the pages are there since the page is.
  for (int item = begin; item < heads * (d - own); item += stride)
    rotated[item / (d - own) * d + own + item % (d - own)] = __float2bfloat16(0.0f);
}

constexpr int kTokensOfBlock = 4, kMostThreads = 512;  // the reads of a block's tokens are under way together

// The same where heads are as wide as the pages and all of a head, or (kPart) its first dimensions, are rotated by halves: eight pairs a thread, or
// sixteen dimensions behind them, of several tokens. A head's threads are neighbours in a warp.
template <bool kPart>
__global__ void __launch_bounds__(kMostThreads, kPart ? 1 : 2) rope_append_halves_kernel(const RopeAppendArgs p) {
  const int d = static_cast<int>(p.kv.head_dim), half = kPart ? static_cast<int>(p.half) : d / 2, groups = d / 16;
  const int heads = static_cast<int>(p.heads), kv_heads = static_cast<int>(p.kv.kv_heads), items = (heads + kv_heads) * groups;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTokensOfBlock;
  const int count = static_cast<int>(min(static_cast<int64_t>(kTokensOfBlock), p.tokens - first));
  // Of K (is_value 0) or V of the KV head, at a dimension.
  const auto place = [&](int64_t t, int head, int is_value, int dimension) {
    const int64_t position = p.first_position + t;
    auto* page = static_cast<__nv_bfloat16*>(p.kv.pages[position / kPageTokens]);
    return reinterpret_cast<uint4*>(page + ((p.kv.layer * kv_heads + head) * 2 + is_value) * kPageTokens * d + page_offset(position % kPageTokens, dimension));
  };
  for (int item = threadIdx.x; item < items; item += blockDim.x) {
    const bool is_query = item < heads * groups;
    const int head = item / groups - (is_query ? 0 : heads), pairs = item % groups * 8, behind = pairs - half, stride = (is_query ? heads : kv_heads) * d;
    const bool rotates = !kPart || behind < 0;
    const int at = rotates ? pairs : 2 * half + 2 * behind, step = rotates ? half : 8;  // the thread's vectors begin at `at` and at + step
    if (is_query && !rotates && p.rotated == p.q) continue;  // they are there
    const int64_t begin = first * stride + head * d + at;
    uint4 low[kTokensOfBlock], high[kTokensOfBlock];
    const auto read = [&](const void* x) {
#pragma unroll
      for (int i = 0; i < kTokensOfBlock; ++i) {
        if (i >= count) continue;
        low[i] = *reinterpret_cast<const uint4*>(static_cast<const __nv_bfloat16*>(x) + begin + i * stride);
        high[i] = *reinterpret_cast<const uint4*>(static_cast<const __nv_bfloat16*>(x) + begin + i * stride + step);
      }
    };
    read(is_query ? p.q : p.k);
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
        if (!rotates) continue;
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
      *(is_query ? query + step / 8 : place(first + i, head, 0, at + step)) = {pack_bf16(y[0], y[1]), pack_bf16(y[2], y[3]), pack_bf16(y[4], y[5]), pack_bf16(y[6], y[7])};
    }
    if (is_query) continue;
    read(p.v);
    const unsigned of_head = ((1u << groups) - 1) << threadIdx.x % 32 / groups * groups;
#pragma unroll
    for (int i = 0; i < kTokensOfBlock; ++i) {
      if (i >= count) continue;
      const bool faulty = __any_sync(of_head, (faults_of(low[i]) | faults_of(high[i])) != 0);
      *place(first + i, head, 1, at) = faulty ? uint4{} : low[i];
      *place(first + i, head, 1, at + step) = faulty ? uint4{} : high[i];
      if (faulty) *place(first + i, head, 0, at) = *place(first + i, head, 0, at + step) = {kNotNumbers, kNotNumbers, kNotNumbers, kNotNumbers};
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
  if (!wide && d != 64 && d != 128 && d != 256) return kInvalidShape;
  const bool halves = wide && (d == 64 || d == 128 || d == 256) && args.head_dim == d && args.half % 8 == 0 && !args.adjacent && args.tokens >= kTokensOfBlock && aligned(args.q) && aligned(args.rotated) && aligned(args.k) &&
                      aligned(args.v) && aligned(args.cosine) && aligned(args.sine);
  const bool normed = args.q_norm || args.k_norm;
  if (normed) {
    if (!args.q_norm || !args.k_norm || args.tokens != 1 || (d != 64 && d != 128 && d != 256) || args.head_dim != d || args.half % (d / 32) != 0 || args.adjacent) return kInvalidShape;
    if (args.q_stride < 0 || args.q_stride % 8 != 0 || (args.q_stride > 0 && (args.q_stride < d || args.rotated == args.q))) return kInvalidShape;
    if (!aligned(args.q_norm) || !aligned(args.k_norm)) return kInvalidAlignment;
  }
  const int64_t items = (args.heads + args.kv.kv_heads) * (d / 16);
  if (halves) {
    const auto kernel = 2 * args.half == d ? rope_append_halves_kernel<false> : rope_append_halves_kernel<true>;
    kernel<<<static_cast<unsigned>(ceil_div(args.tokens, kTokensOfBlock)), static_cast<unsigned>(std::min<int64_t>(ceil_div(items, 32) * 32, kMostThreads)), 0, cuda(stream)>>>(args);
  }
  const dim3 grid(static_cast<unsigned>(args.tokens), args.tokens < kTokensOfBlock ? static_cast<unsigned>(ceil_div((args.heads + args.kv.kv_heads) * args.head_dim / 2, kThreads)) : 1u);
  if (!wide || normed)
    for (const void* pointer : {args.q, static_cast<const void*>(args.rotated), args.k, args.v, static_cast<const void*>(args.cosine), static_cast<const void*>(args.sine)})
      if (!aligned(pointer)) return kInvalidAlignment;
  const PageFormat format = args.kv.format;
  if (const Status status = format == PageFormat::kQ8 ? launch_rope_append_q8(args, stream) : format == PageFormat::kQ4 ? launch_rope_append_q4(args, stream) : !wide ? launch_rope_append_e4m3(args, stream) : normed ? launch_rope_append_normed(args, stream) : halves ? launched() : launch_dependent(rope_append_kernel, grid, kThreads, 0, stream, args)) return status;
  return launch_page_means(args.kv, args.first_position, args.tokens, stream);
}

}  // namespace longview::kernels
