#include "kernels/api/elementwise.h"
#include "kernels/common/dequantize.cuh"
#include "kernels/common/gated.cuh"
#include "kernels/common/launch.cuh"
#include "kernels/elementwise/rows.cuh"
#include "kernels/ptx/dependent_launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kThreads = 256;

template <WeightType kType>
__global__ void embed_kernel(EmbedArgs p, int64_t bytes) {
  const uint8_t* row = static_cast<const uint8_t*>(p.embedding) + p.tokens[blockIdx.x] * bytes;
  float* out = p.out + static_cast<int64_t>(blockIdx.x) * p.cols;
  for (int64_t group = threadIdx.x; group < p.cols / kGroup; group += blockDim.x) {
    float values[kGroup];
    load_group<kType>(row, group, values);
#pragma unroll
    for (int i = 0; i < kGroup; ++i) values[i] *= p.scale;
#pragma unroll
    for (int i = 0; i < kGroup; i += 4)
      *reinterpret_cast<float4*>(out + group * kGroup + i) = {values[i], values[i + 1], values[i + 2], values[i + 3]};
  }
}

// Of bf16, whose rows need not be whole groups.
__global__ void embed_bf16_kernel(EmbedArgs p) {
  const auto* row = static_cast<const uint4*>(p.embedding) + p.tokens[blockIdx.x] * (p.cols / 8);
  auto* out = reinterpret_cast<float4*>(p.out + static_cast<int64_t>(blockIdx.x) * p.cols);
  for (int64_t i = threadIdx.x; i < p.cols / 8; i += blockDim.x) {
    float v[8];
    unpack_bf16x8(row[i], v);
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] *= p.scale;
    out[2 * i] = {v[0], v[1], v[2], v[3]};
    out[2 * i + 1] = {v[4], v[5], v[6], v[7]};
  }
}

__device__ inline float read(const float* x, int64_t i) { return x[i]; }
__device__ inline float read(const __nv_bfloat16* x, int64_t i) { return __bfloat162float(x[i]); }

// A row, by so many threads of a block: all of them, or a warp.
template <typename T, int kRowThreads>
__device__ inline void norm_row(const T* x, const float* weight, __nv_bfloat16* out, int64_t cols, float epsilon) {
  const int lane = threadIdx.x % kRowThreads;
  float sum = 0;
  for (int64_t i = lane; i < cols; i += kRowThreads) {
    const float value = read(x, i);
    sum = fmaf(value, value, sum);
  }
  sum = warp_sum(sum);
  if constexpr (kRowThreads > 32) {
    __shared__ float parts[kRowThreads / 32];
    if (lane % 32 == 0) parts[lane / 32] = sum;
    __syncthreads();
    sum = 0;
#pragma unroll
    for (int i = 0; i < kRowThreads / 32; ++i) sum += parts[i];
  }
  const float scale = rsqrtf(sum / static_cast<float>(cols) + epsilon);
  for (int64_t i = lane; i < cols; i += kRowThreads) out[i] = __float2bfloat16(read(x, i) * scale * weight[i]);
}

// A row a block of kThreads, or a warp where rows are short.
template <typename T, int kRowThreads>
__global__ void __launch_bounds__(kThreads) rms_norm_kernel(const T* x, const float* weight, __nv_bfloat16* out, int64_t rows, int64_t cols, float epsilon) {
  ptx::start_dependents();
  ptx::wait_for_previous();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kThreads / kRowThreads) + threadIdx.x / kRowThreads;
  if (row < rows) norm_row<T, kRowThreads>(x + row * cols, weight, out + row * cols, cols, epsilon);
}

// A warp a head: those of Q, then those of K.
__global__ void __launch_bounds__(kThreads) rms_norm_heads_kernel(const RmsNormHeadsArgs p) {
  ptx::start_dependents();
  ptx::wait_for_previous();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (row >= p.q_rows + p.k_rows) return;
  const bool of_q = row < p.q_rows;
  auto* x = static_cast<__nv_bfloat16*>(of_q ? p.q : p.k) + (of_q ? row : row - p.q_rows) * p.cols;
  norm_row<__nv_bfloat16, 32>(x, of_q ? p.q_weight : p.k_weight, x, p.cols, p.epsilon);
}

template <typename T>
Status rms_norm(const RmsNormArgs& a, Stream stream) {
  const auto* x = static_cast<const T*>(a.x);
  auto* out = static_cast<__nv_bfloat16*>(a.out);
  if (a.cols <= 256) {
    const auto blocks = static_cast<unsigned>(ceil_div(a.rows, kThreads / 32));
    return launch_dependent(rms_norm_kernel<T, 32>, blocks, kThreads, 0, stream, x, a.weight, out, a.rows, a.cols, a.epsilon);
  }
  return launch_dependent(rms_norm_kernel<T, kThreads>, static_cast<unsigned>(a.rows), kThreads, 0, stream, x, a.weight, out, a.rows, a.cols, a.epsilon);
}

__global__ void __launch_bounds__(kThreads) scale_queries_kernel(const ScaleQueriesArgs p) {
  ptx::start_dependents();
  ptx::wait_for_previous();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, vectors = p.cols / 8;
  if (i >= p.rows * vectors) return;
  const int64_t position = (p.position ? *p.position : p.first_position) + i / vectors;
  const auto scale = static_cast<float>(1 + p.growth * log1p(static_cast<double>(position / p.span)));
  auto* at = static_cast<uint4*>(p.q) + i;
  float v[8];
  unpack_bf16x8(*at, v);
  *at = {pack_bf16(v[0] * scale, v[1] * scale), pack_bf16(v[2] * scale, v[3] * scale), pack_bf16(v[4] * scale, v[5] * scale), pack_bf16(v[6] * scale, v[7] * scale)};
}

__global__ void __launch_bounds__(kThreads) gate_mul_kernel(uint4* gate, const uint4* up, int64_t vectors, GateCurve curve) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= vectors) return;
  float g[8], u[8];
  unpack_bf16x8(gate[i], g);
  unpack_bf16x8(up[i], u);
#pragma unroll
  for (int j = 0; j < 8; ++j) g[j] = gate_mul(g[j], u[j], curve);
  gate[i] = {pack_bf16(g[0], g[1]), pack_bf16(g[2], g[3]), pack_bf16(g[4], g[5]), pack_bf16(g[6], g[7])};
}

__global__ void __launch_bounds__(kThreads) add_kernel(float4* x, const uint4* y, int64_t vectors) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= vectors) return;
  float b[8];
  unpack_bf16x8(y[i], b);
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    float4 a = x[2 * i + j];
    a.x += b[4 * j];
    a.y += b[4 * j + 1];
    a.z += b[4 * j + 2];
    a.w += b[4 * j + 3];
    x[2 * i + j] = a;
  }
}

}  // namespace

Status launch_embed(const EmbedArgs& args, Stream stream) {
  const BlockShape block = block_shape(args.type);
  if (block.elements == 0 || args.type == WeightType::kE4M3) return kUnsupportedType;
  if (args.tokens_count <= 0 || args.tokens_count > kLargestGrid || args.cols <= 0 || args.cols % std::max(block.elements, 8) != 0) return kInvalidShape;
  if (!aligned(args.embedding) || !aligned(args.out)) return kInvalidAlignment;
  if (args.type == WeightType::kBFloat16) {
    embed_bf16_kernel<<<static_cast<unsigned>(args.tokens_count), 128, 0, cuda(stream)>>>(args);
    return launched();
  }
  for_type(args.type, [&]<WeightType kType>() {
    embed_kernel<kType><<<static_cast<unsigned>(args.tokens_count), 64, 0, cuda(stream)>>>(args, row_bytes(kType, args.cols));
  });
  return launched();
}

Status launch_rms_norm(const RmsNormArgs& args, Stream stream) {
  if (args.rows <= 0 || args.rows > kLargestGrid || args.cols <= 0) return kInvalidShape;
  if (args.coded && args.element != Element::kFloat32) return kUnsupportedType;
  // Long rows take the kernel that reads them once.
  if (args.coded || (args.element == Element::kFloat32 && args.cols > 256 && args.cols % 8 == 0 && args.cols <= kMostE4M3Columns && aligned(args.x) && aligned(args.out) && aligned(args.weight)))
    return launch_rms_norm_rows(args, stream);
  return args.element == Element::kFloat32 ? rms_norm<float>(args, stream) : rms_norm<__nv_bfloat16>(args, stream);
}

Status launch_rms_norm_heads(const RmsNormHeadsArgs& args, Stream stream) {
  const int64_t rows = args.q_rows + args.k_rows;
  if (args.q_rows < 0 || args.k_rows < 0 || rows <= 0 || args.cols <= 0 || args.cols > 256 || ceil_div(rows, kThreads / 32) > kLargestGrid) return kInvalidShape;
  return launch_dependent(rms_norm_heads_kernel, dim3(static_cast<unsigned>(ceil_div(rows, kThreads / 32))), kThreads, 0, stream, args);
}

Status launch_scale_queries(const ScaleQueriesArgs& args, Stream stream) {
  if (args.rows <= 0 || args.cols <= 0 || args.cols % 8 != 0 || args.first_position < 0 || args.span <= 0) return kInvalidShape;
  if (!aligned(args.q)) return kInvalidAlignment;
  const int64_t blocks = ceil_div(args.rows * (args.cols / 8), kThreads);
  if (blocks > kLargestGrid) return kInvalidShape;
  return launch_dependent(scale_queries_kernel, dim3(static_cast<unsigned>(blocks)), kThreads, 0, stream, args);
}

Status launch_gate_mul(const GateMulArgs& args, Stream stream) {
  const int64_t vectors = args.count / 8, blocks = ceil_div(vectors, kThreads);
  if (args.count <= 0 || args.count % 8 != 0 || blocks > kLargestGrid) return kInvalidShape;
  if (!aligned(args.gate) || !aligned(args.up)) return kInvalidAlignment;
  gate_mul_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, cuda(stream)>>>(static_cast<uint4*>(args.gate), static_cast<const uint4*>(args.up), vectors, args.curve);
  return launched();
}

Status launch_add(const AddArgs& args, Stream stream) {
  const int64_t vectors = args.count / 8, blocks = ceil_div(vectors, kThreads);
  if (args.count <= 0 || args.count % 8 != 0 || blocks > kLargestGrid) return kInvalidShape;
  if (!aligned(args.x) || !aligned(args.y)) return kInvalidAlignment;
  add_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, cuda(stream)>>>(reinterpret_cast<float4*>(args.x), static_cast<const uint4*>(args.y), vectors);
  return launched();
}

}  // namespace longview::kernels
