#include "cpu/delta_net.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "cpu/each_row.h"

namespace longview::cpu {
namespace {

constexpr int64_t kTaps = 4;           // read_config lets no others through
constexpr int64_t kBlockChannels = 64;  // of the convolution: their weights and last inputs stay in the first-level cache
constexpr int64_t kBlockValues = 16;    // columns of S, which a thread takes through all tokens: they know nothing of each other
constexpr float kNormEpsilon = 1e-6f;   // of q's and k's length, transformers' own

float softplus(float x) { return x > 20 ? x : std::log1p(std::exp(x)); }

void normalise(float* x, int64_t n, float scale, const Kernels& kernels) {
  const float factor = scale / std::sqrt(kernels.dot(x, x, n) + kNormEpsilon);
  std::transform(x, x + n, x, [&](float value) { return value * factor; });
}

}  // namespace

CpuRecurrentState::CpuRecurrentState(const RecurrentShape& shape) {
  const int64_t floats = shape.layers * layer_floats(shape.config);
  try {
    values_.resize(static_cast<size_t>(floats));
  } catch (const std::bad_alloc&) {
    LONGVIEW_THROW(kOutOfMemory, "Not enough memory: %.1f MB more are needed for a conversation's recurrent state.", static_cast<double>(floats) * 4e-6);
  }
}

// In place; a channel's outputs go through SiLU.
void DeltaNet::convolve(float* mixed, int64_t tokens, const Layer& layer) {
  const int64_t channels = layer.config.channels();
  pool_.parallel_for((channels + kBlockChannels - 1) / kBlockChannels, [&](int64_t item, int) {
    const int64_t first = item * kBlockChannels, count = std::min(kBlockChannels, channels - first);
    using Row = std::array<float, kBlockChannels>;
    Row taps[kTaps], last[kTaps - 1], ones;
    ones.fill(1);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t tap = 0; tap < kTaps; ++tap) taps[tap][static_cast<size_t>(i)] = layer.taps[(first + i) * kTaps + tap];
    for (int64_t tap = 0; tap + 1 < kTaps; ++tap) std::copy_n(layer.before + tap * channels + first, count, last[tap].begin());
    for (int64_t t = 0; t < tokens; ++t) {
      float* row = mixed + t * channels + first;
      for (int64_t i = 0; i < count; ++i) {
        const auto at = static_cast<size_t>(i);
        const float now = row[i];
        row[i] = taps[0][at] * last[0][at] + taps[1][at] * last[1][at] + taps[2][at] * last[2][at] + taps[3][at] * now;
        last[0][at] = last[1][at];
        last[1][at] = last[2][at];
        last[2][at] = now;
      }
      kernels_.gate_mul(row, ones.data(), {}, count);
    }
    for (int64_t tap = 0; tap + 1 < kTaps; ++tap) std::copy_n(last[tap].begin(), count, layer.after + tap * channels + first);
  });
}

void DeltaNet::run(float* mixed, float* gate, float* alpha, float* beta, int64_t tokens, const Layer& layer, float* out) {
  const RecurrentConfig& c = layer.config;
  const int64_t d = c.head_dim, channels = c.channels(), heads = c.value_heads, width = c.value_dim();
  convolve(mixed, tokens, layer);
  each_row(pool_, tokens, [&](int64_t t) {
    float* row = mixed + t * channels;
    for (int64_t h = 0; h < c.key_heads; ++h) {
      normalise(row + h * d, d, 1 / std::sqrt(static_cast<float>(d)), kernels_);
      normalise(row + c.key_dim() + h * d, d, 1, kernels_);
    }
    for (int64_t h = 0; h < heads; ++h) {
      alpha[t * heads + h] = std::exp(layer.decay[h] * softplus(alpha[t * heads + h] + layer.decay_bias[h]));
      beta[t * heads + h] = 1 / (1 + std::exp(-beta[t * heads + h]));
    }
  });

  const float* before = layer.before + (kTaps - 1) * channels;
  float* after = layer.after + (kTaps - 1) * channels;
  pool_.parallel_for(heads * (d / kBlockValues), [&](int64_t item, int) {
    const int64_t h = item / (d / kBlockValues), first = item % (d / kBlockValues) * kBlockValues;
    const int64_t key_head = c.tiled ? h % c.key_heads : h / (heads / c.key_heads), at = h * d * d + first;
    const float *q = mixed + key_head * d, *k = q + c.key_dim(), *v = mixed + 2 * c.key_dim() + h * d + first;
    kernels_.delta_rule({q, k, v, channels, alpha + h, beta + h, heads, tokens, d, before + at, after + at, out + h * d + first, width});
  });

  each_row(pool_, tokens, [&](int64_t t) {
    float *row = out + t * width, *gates = gate + t * width;
    for (int64_t h = 0; h < heads; ++h) kernels_.rms_norm(row + h * d, layer.value_norm, layer.epsilon, row + h * d, d);
    kernels_.gate_mul(gates, row, {}, width);
    std::memcpy(row, gates, static_cast<size_t>(width) * sizeof(float));
  });
}

}  // namespace longview::cpu
