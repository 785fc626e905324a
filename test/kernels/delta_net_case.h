// Cases of gated DeltaNet: inputs, the recurrence in double, a run on the GPU, and how far the one may be from the other. Errors are taken
// head by head, against the head's largest value; the worst head decides.
#pragma once

#include <algorithm>

#include "kernels/gpu.h"

namespace delta_net_case {

using namespace longview;
using namespace gpu;
using kernels::DeltaNetArgs;

// One by one: float32, and results rounded once, by at most 2^-8 of themselves. In chunks: factors of products are fp16, and the results
// before their norm bf16; a result whose S^T q is small is divided by that, and its error with it. Keys that differ by a hundredth tell S
// apart by what is left of their rounding.
struct Bounds {
  double out, state;
};
constexpr Bounds kRow{4e-3, 1e-5}, kChunks{1e-2, 3e-3}, kNearKeys{2e-2, 1.2e-2};
// Kernels of which architecture there are for heads of so many dimensions.
inline std::vector<int32_t> architectures(int64_t dim) { return dim == 128 ? std::vector<int32_t>{0, 80} : std::vector<int32_t>{0}; }
inline Bounds bounds_of(int64_t tokens, bool near_keys = false) { return tokens <= kernels::kDeltaRowTokens ? kRow : near_keys ? kNearKeys : kChunks; }

enum class Gates { kAny, kStrong, kNone, kBoth };

struct Shape {
  int64_t key_heads, value_heads, dim;
  bool tiled;
  int64_t channels() const { return kernels::delta_channels(key_heads, value_heads, dim); }
  int64_t values() const { return value_heads * dim; }
  size_t matrices() const { return static_cast<size_t>(value_heads * dim * dim); }
  size_t past() const { return static_cast<size_t>(3 * channels()); }
};

// A state as it lies on the device, and back.
inline std::vector<uint8_t> bytes_of(const Shape& shape, const std::vector<float>& s, const std::vector<uint16_t>& past) {
  std::vector<uint8_t> bytes(static_cast<size_t>(kernels::delta_state_bytes(shape.key_heads, shape.value_heads, shape.dim)), 0xff);
  std::memcpy(bytes.data(), s.data(), s.size() * 4);
  std::memcpy(bytes.data() + s.size() * 4, past.data(), past.size() * 2);
  return bytes;
}
inline std::vector<float> matrices_of(const Shape& shape, const std::vector<uint8_t>& bytes) {
  std::vector<float> s(shape.matrices());
  std::memcpy(s.data(), bytes.data(), s.size() * 4);
  return s;
}
inline std::vector<uint16_t> past_of(const Shape& shape, const std::vector<uint8_t>& bytes) {
  std::vector<uint16_t> past(shape.past());
  std::memcpy(past.data(), bytes.data() + shape.matrices() * 4, past.size() * 2);
  return past;
}

struct Inputs {
  Shape shape;
  int64_t tokens;
  std::vector<uint16_t> qkv, z, alpha, beta, past;
  std::vector<float> conv, decay, dt_bias, norm, s;
  float epsilon = 1e-6f;
  std::vector<double> exact_alpha = {}, exact_beta = {};  // in place of alpha and beta where those are made on the way
};

inline Inputs make(const Shape& shape, int64_t tokens, std::mt19937_64& random, Gates gates = Gates::kAny, bool near_keys = false) {
  const auto count = [](int64_t n) { return static_cast<size_t>(n); };
  Inputs in{shape, tokens, random_bf16(count(tokens * shape.channels()), random), random_bf16(count(tokens * shape.values()), random), {}, {}, random_bf16(shape.past(), random),
            random_float(count(shape.channels() * 4), random, 0.5f), {}, random_float(count(shape.value_heads), random, 0.5f), random_float(count(shape.dim), random), random_float(shape.matrices(), random, 0.1f)};
  std::normal_distribution<float> normal(0, 1);
  std::uniform_real_distribution<float> uniform(-4, 1);
  for (int64_t h = 0; h < shape.value_heads; ++h) in.decay.push_back(gates == Gates::kAny ? -std::exp(uniform(random)) : -30.0f);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t h = 0; h < shape.value_heads; ++h) {
      const bool none = gates == Gates::kNone || (gates == Gates::kBoth && random() % 8 != 0);
      in.alpha.push_back(float_to_bf16(gates == Gates::kAny ? normal(random) : none ? -24.0f : 0.6f + 0.1f * normal(random)));
      in.beta.push_back(float_to_bf16(near_keys ? 8 + 0.1f * normal(random) : 2 * normal(random)));
    }
  if (near_keys)  // the same key again and again, but for a hundredth
    for (int64_t c = shape.key_heads * shape.dim; c < 2 * shape.key_heads * shape.dim; ++c) {
      const float base = normal(random);
      for (int64_t t = 0; t < tokens; ++t) in.qkv[count(t * shape.channels() + c)] = float_to_bf16(base + 0.01f * normal(random));
    }
  return in;
}

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

struct Reference {
  std::vector<double> out;
  std::vector<std::vector<double>> states;  // behind each of the asked numbers of tokens
};

inline Reference reference(const Inputs& in, const std::vector<int64_t>& asked) {
  const auto [key_heads, value_heads, dim, tiled] = in.shape;
  const int64_t channels = in.shape.channels();
  Reference result;
  std::vector<double> s(in.s.begin(), in.s.end()), x(static_cast<size_t>(channels)), kept(static_cast<size_t>(dim)), o(static_cast<size_t>(dim));
  for (int64_t t = 0; t < in.tokens; ++t) {
    for (int64_t c = 0; c < channels; ++c) {
      double sum = 0;
      for (int64_t i = 0; i < 4; ++i) {
        const int64_t from = t - 3 + i;
        sum += in.conv[static_cast<size_t>(c * 4 + i)] * (from < 0 ? at(in.past, static_cast<size_t>((from + 3) * channels + c)) : at(in.qkv, static_cast<size_t>(from * channels + c)));
      }
      x[static_cast<size_t>(c)] = sum * sigmoid(sum);
    }
    for (int64_t h = 0; h < 2 * key_heads; ++h) {
      double squares = 0;
      for (int64_t i = 0; i < dim; ++i) squares += x[static_cast<size_t>(h * dim + i)] * x[static_cast<size_t>(h * dim + i)];
      for (int64_t i = 0; i < dim; ++i) x[static_cast<size_t>(h * dim + i)] *= 1 / std::sqrt(squares + 1e-6) * (h < key_heads ? 1 / std::sqrt(static_cast<double>(dim)) : 1);
    }
    for (int64_t h = 0; h < value_heads; ++h) {
      const int64_t key_head = tiled ? h % key_heads : h / (value_heads / key_heads);
      const auto gate = static_cast<size_t>(t * value_heads + h);
      const bool exact = !in.exact_alpha.empty();
      const double rise = (exact ? in.exact_alpha[gate] : at(in.alpha, gate)) + in.dt_bias[static_cast<size_t>(h)];
      const double decay = std::exp(in.decay[static_cast<size_t>(h)] * (rise > 20 ? rise : std::log1p(std::exp(rise)))), rate = sigmoid(exact ? in.exact_beta[gate] : at(in.beta, gate));
      const double *q = &x[static_cast<size_t>(key_head * dim)], *k = &x[static_cast<size_t>((key_heads + key_head) * dim)], *v = &x[static_cast<size_t>((2 * key_heads + h) * dim)];
      double* matrix = &s[static_cast<size_t>(h * dim * dim)];
      std::fill(kept.begin(), kept.end(), 0.0);
      std::fill(o.begin(), o.end(), 0.0);
      for (int64_t i = 0; i < dim; ++i)
        for (int64_t j = 0; j < dim; ++j) {
          matrix[i * dim + j] *= decay;
          kept[static_cast<size_t>(j)] += matrix[i * dim + j] * k[i];
        }
      for (int64_t i = 0; i < dim; ++i)
        for (int64_t j = 0; j < dim; ++j) {
          matrix[i * dim + j] += k[i] * rate * (v[j] - kept[static_cast<size_t>(j)]);
          o[static_cast<size_t>(j)] += matrix[i * dim + j] * q[i];
        }
      double squares = 0;
      for (const double value : o) squares += value * value;
      const double scale = 1 / std::sqrt(squares / static_cast<double>(dim) + in.epsilon);
      for (int64_t j = 0; j < dim; ++j) {
        const double z = at(in.z, static_cast<size_t>((t * value_heads + h) * dim + j));
        result.out.push_back(o[static_cast<size_t>(j)] * scale * in.norm[static_cast<size_t>(j)] * z * sigmoid(z));
      }
    }
    if (std::find(asked.begin(), asked.end(), t + 1) != asked.end()) result.states.push_back(s);
  }
  return result;
}

// The inputs on a device.
struct Device {
  Memory<uint16_t> qkv, z, alpha, beta;
  Memory<float> conv, decay, dt_bias, norm;
  explicit Device(const Inputs& in) : qkv(in.qkv), z(in.z), alpha(in.alpha), beta(in.beta), conv(in.conv), decay(in.decay), dt_bias(in.dt_bias), norm(in.norm) {}
  // Tokens first .. first + tokens - 1; without states, results and workspace.
  DeltaNetArgs args(const Inputs& in, int64_t first, int64_t tokens) const {
    const Shape& shape = in.shape;
    DeltaNetArgs a{};
    a.qkv = qkv.get() + first * shape.channels(), a.z = z.get() + first * shape.values();
    a.alpha = alpha.get() + first * shape.value_heads, a.beta = beta.get() + first * shape.value_heads;
    a.conv = conv.get(), a.decay = decay.get(), a.dt_bias = dt_bias.get(), a.norm = norm.get();
    a.tokens = tokens, a.key_heads = shape.key_heads, a.value_heads = shape.value_heads, a.head_dim = shape.dim;
    a.epsilon = in.epsilon, a.tiled = shape.tiled;
    return a;
  }
};

inline size_t workspace_bytes(const Shape& shape, int64_t tokens) { return static_cast<size_t>(kernels::delta_net_workspace_bytes(tokens, shape.key_heads, shape.value_heads, shape.dim)); }

struct Result {
  std::vector<uint16_t> out;
  std::vector<uint8_t> state;
  bool operator==(const Result&) const = default;
};

// In calls of so many tokens each.
inline Result run(const Inputs& in, const std::vector<int64_t>& pieces, int32_t architecture = 0) {
  const Device device(in);
  int64_t tokens = 0;
  for (const int64_t piece : pieces) tokens += piece;
  const std::vector<uint8_t> begin = bytes_of(in.shape, in.s, in.past);
  const Memory<uint16_t> out(static_cast<size_t>(tokens * in.shape.values()));
  const Memory<uint8_t> states[2] = {Memory<uint8_t>(begin), Memory<uint8_t>(begin.size())};
  int from = 0;
  int64_t first = 0;
  for (const int64_t piece : pieces) {
    const Memory<uint8_t> workspace(workspace_bytes(in.shape, piece));
    const int to = 1 - from;
    const std::vector<uint8_t> before = states[from].read();
    DeltaNetArgs args = device.args(in, first, piece);
    args.out = out.get() + first * in.shape.values(), args.workspace = workspace.get();
    args.before = states[from].get(), args.after = states[to].get(), args.architecture = architecture;
    GPU(delta_net(args, stream()));
    CHECK(states[from].read() == before);
    from = to, first += piece;
  }
  return {out.read(), states[from].read()};
}

// Of the head with the largest: |got - wanted| over the head's largest |wanted|. A head's values are every `heads`th run of so many.
template <typename T>
double worst_head(const std::vector<T>& got, const double* wanted, int64_t heads, int64_t run) {
  double worst = 0;
  for (int64_t h = 0; h < heads; ++h) {
    double difference = 0, largest = 0;
    for (size_t i = static_cast<size_t>(h * run); i < got.size(); i += static_cast<size_t>(heads * run))
      for (size_t j = i; j < i + static_cast<size_t>(run); ++j) {
        const double d = std::fabs(at(got, j) - wanted[j]);
        if (!std::isfinite(d)) return INFINITY;
        difference = std::max(difference, d), largest = std::max(largest, std::fabs(wanted[j]));
      }
    worst = std::max(worst, difference / largest);
  }
  return worst;
}

// The inputs of the last three tokens, to the bit.
inline std::vector<uint16_t> past_behind(const Inputs& in, int64_t tokens) {
  std::vector<uint16_t> all = in.past;
  all.insert(all.end(), in.qkv.begin(), in.qkv.begin() + tokens * in.shape.channels());
  return {all.end() - static_cast<int64_t>(in.shape.past()), all.end()};
}

// Checks a run over the first `tokens`, and remembers the worst.
struct Worst {
  Bounds row{0, 0}, chunks{0, 0}, near_keys{0, 0};
  void check(const Inputs& in, const Result& got, const Reference& wanted, size_t state, int64_t tokens, Bounds bounds, const char* what) {
    const double out = worst_head(got.out, wanted.out.data(), in.shape.value_heads, in.shape.dim);
    const double s = worst_head(matrices_of(in.shape, got.state), wanted.states[state].data(), in.shape.value_heads, in.shape.dim * in.shape.dim);
    const bool right = out <= bounds.out && s <= bounds.state && got.out.size() == static_cast<size_t>(tokens * in.shape.values()) && past_of(in.shape, got.state) == past_behind(in, tokens);
    CHECK(right);
    if (!right) std::printf("  %s: %d tokens, heads %d and %d of %d, tiled %d: out %.1e, state %.1e\n", what, int(tokens), int(in.shape.key_heads), int(in.shape.value_heads), int(in.shape.dim), in.shape.tiled, out, s);
    Bounds& worst = bounds.out == kRow.out ? row : bounds.out == kChunks.out ? chunks : near_keys;
    worst = {std::max(worst.out, out), std::max(worst.state, s)};
  }
  void print() const {
    std::printf("  worst head: one by one out %.1e, state %.1e; in chunks out %.1e, state %.1e; of keys that are nearly one out %.1e, state %.1e\n", row.out, row.state, chunks.out, chunks.state, near_keys.out, near_keys.state);
  }
};

}  // namespace delta_net_case
