// Draws an index by its probability: weights by many blocks, then one block that draws among all, and again among those above what was
// drawn while that lies outside a limit. Nothing is sorted. Every step is that of native/base/draw.cpp, on the same integers.
#include <cmath>

#include "kernels/api/elementwise.h"
#include "kernels/common/launch.cuh"

namespace longview::kernels {
namespace {

constexpr int kWeighThreads = 256, kThreads = 1024, kTerms = 10;
constexpr uint32_t kOne = uint32_t{1} << 31;

struct Series {
  uint64_t term[kTerms];
};
// ln(2)^i / i!, the series of 2^x, in units of 2^-32.
constexpr Series series() {
  Series out{};
  double term = 1;
  for (int i = 0; i < kTerms; ++i) {
    out.term[i] = static_cast<uint64_t>(term * 0x1p32 + 0.5);
    term *= 0.693147180559945309417 / (i + 1);
  }
  return out;
}

// kOne * 2^-x, and 0 where that is below 1 or x is no number.
__device__ inline uint32_t power(double x) {
  if (!(x < 32)) return 0;
  const auto fixed = static_cast<uint64_t>(x * 0x1p32);
  const uint64_t whole = fixed >> 32, fraction = fixed & 0xffffffff;
  if (fraction == 0) return kOne >> whole;
  constexpr Series kSeries = series();
  uint64_t sum = kSeries.term[kTerms - 1];
#pragma unroll
  for (int i = kTerms - 2; i >= 0; --i) sum = kSeries.term[i] + (sum * ((uint64_t{1} << 32) - fraction) >> 32);
  return static_cast<uint32_t>(sum >> (whole + 2));
}

__device__ inline uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

// Weights behind the last are 0.
__global__ void __launch_bounds__(kWeighThreads) weigh_kernel(const DrawArgs a) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kWeighThreads + threadIdx.x;
  const double best = a.x[*a.largest];
  a.weights[i] = i < a.count && isfinite(best) ? power(__dmul_rn(__dsub_rn(best, static_cast<double>(a.x[i])), a.scale)) : 0;
}

struct Above {
  uint64_t mass = 0;
  uint32_t count = 0;
};

// Of this thread's weights, those above `weight`.
__device__ inline Above above(const uint4* weights, int vectors, uint32_t weight) {
  Above sum;
  for (int i = 0; i < vectors; ++i) {
    const uint4 four = weights[i];
    for (const uint32_t w : {four.x, four.y, four.z, four.w})
      if (w > weight) sum.mass += w, ++sum.count;
  }
  return sum;
}

// The sum over all threads; `before` becomes the mass of those before this one.
__device__ inline Above block_sum(Above own, uint64_t& before) {
  __shared__ uint64_t masses[kThreads / 32];
  __shared__ uint32_t counts[kThreads / 32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  uint64_t mass = own.mass;  // of the lanes up to this one
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const uint64_t other = __shfl_up_sync(0xffffffffu, mass, step);
    if (lane >= step) mass += other;
  }
  const uint32_t count = __reduce_add_sync(0xffffffffu, own.count);
  __syncthreads();  // what was there has been read
  if (lane == 31) masses[warp] = mass, counts[warp] = count;
  __syncthreads();
  Above sum;
  before = mass - own.mass;
  for (int i = 0; i < kThreads / 32; ++i) {
    if (i < warp) before += masses[i];
    sum.mass += masses[i], sum.count += counts[i];
  }
  return sum;
}

__global__ void __launch_bounds__(kThreads) draw_kernel(const DrawArgs a, int vectors) {
  __shared__ uint32_t drawn, weight;
  const int64_t first = static_cast<int64_t>(threadIdx.x) * vectors;
  const uint4* weights = reinterpret_cast<const uint4*>(a.weights) + first;
  uint64_t before = 0;
  const double most = __dmul_rn(a.top_p, static_cast<double>(block_sum(above(weights, vectors, 0), before).mass));
  uint32_t floor = a.least > 0 ? a.least - 1 : 0;
  Above own = above(weights, vectors, floor);
  uint64_t mass = block_sum(own, before).mass;
  if (mass == 0) {
    if (threadIdx.x == 0) *a.index = *a.largest;
    return;
  }
  for (uint64_t random = a.random;; random = mix(random)) {
    uint64_t point = __umul64hi(random, mass);
    if (point >= before && point - before < own.mass) {
      point -= before;
      const uint32_t* at = a.weights + 4 * first;
      int i = 0;
      for (; at[i] <= floor || point >= at[i]; ++i)
        if (at[i] > floor) point -= at[i];
      drawn = static_cast<uint32_t>(4 * first + i), weight = at[i];
    }
    __syncthreads();
    floor = weight;
    own = above(weights, vectors, floor);
    const Above over = block_sum(own, before);  // behind its barriers `drawn` and `weight` may be written again
    if (over.mass == 0 || ((a.top_k == 0 || over.count < a.top_k) && static_cast<double>(over.mass) < most)) {
      if (threadIdx.x == 0) *a.index = static_cast<int32_t>(drawn);
      return;
    }
    mass = over.mass;
  }
}

}  // namespace

int64_t draw_weights(int64_t count) { return ceil_div(count, 4 * kThreads) * 4 * kThreads; }

Status launch_draw(const DrawArgs& args, Stream stream) {
  if (args.count <= 0 || args.count > kLargestGrid / 2 || args.top_k < 0 || args.least > kOne || !std::isfinite(args.scale)) return kInvalidShape;
  if (!aligned(args.weights)) return kInvalidAlignment;
  const int64_t count = draw_weights(args.count);
  weigh_kernel<<<static_cast<unsigned>(count / kWeighThreads), kWeighThreads, 0, cuda(stream)>>>(args);
  draw_kernel<<<1, kThreads, 0, cuda(stream)>>>(args, static_cast<int>(count / (4 * kThreads)));
  return launched();
}

}  // namespace longview::kernels
