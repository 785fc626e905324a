// What a recurrent layer does between its products, on every code path of the CPU against double: any number of tokens, value heads in both
// orders, states that go on, hard decays and none, keys that are nearly alike; and the gates of attention.
#include <algorithm>
#include <cmath>
#include <random>

#include "backend/backend.h"
#include "check.h"

using namespace longview;

namespace {

constexpr float kEpsilon = 1e-6f;
constexpr int64_t kTaps = 4;

std::vector<float> some(int64_t count, float scale, uint32_t seed, float mean = 0) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(mean, scale);
  std::vector<float> out(static_cast<size_t>(count));
  for (float& x : out) x = normal(random);
  return out;
}

struct Layer {
  RecurrentConfig config;
  std::vector<float> taps, decay, decay_bias, value_norm;

  Layer(RecurrentConfig c, uint32_t seed) : config(c) {
    taps = some(c.channels() * kTaps, 0.5f, seed);
    decay = some(c.value_heads, 0.7f, seed + 1);
    for (float& x : decay) x = -std::exp(x);
    decay_bias = some(c.value_heads, 1, seed + 2);
    value_norm = some(c.head_dim, 0.2f, seed + 3, 1);
  }
};

struct Inputs {
  std::vector<float> mixed, gate, alpha, beta;

  Inputs(const RecurrentConfig& c, int64_t tokens, uint32_t seed, float decays = 0, bool alike = false)
      : mixed(some(tokens * c.channels(), 1, seed)), gate(some(tokens * c.value_dim(), 1, seed + 1)), alpha(some(tokens * c.value_heads, 1, seed + 2, decays)), beta(some(tokens * c.value_heads, 1, seed + 3, alike ? 8 : 0)) {
    if (!alike) return;
    for (int64_t t = 1; t < tokens; ++t)
      for (int64_t i = c.key_dim(); i < 2 * c.key_dim(); ++i) mixed[static_cast<size_t>(t * c.channels() + i)] = mixed[static_cast<size_t>(i)] * 1.001f;
  }
};

// In double, token by token; goes on where it was called last.
struct Reference {
  const Layer& layer;
  std::vector<std::vector<double>> last;  // [taps - 1][channels]
  std::vector<double> s;                  // [value_heads][d][d]

  explicit Reference(const Layer& l) : layer(l) {
    last.assign(kTaps - 1, std::vector<double>(static_cast<size_t>(l.config.channels())));
    s.resize(static_cast<size_t>(l.config.value_dim() * l.config.head_dim));
  }
  std::vector<double> token(const Inputs& in, int64_t t) {
    const RecurrentConfig& c = layer.config;
    const auto channels = static_cast<size_t>(c.channels()), d = static_cast<size_t>(c.head_dim), heads = static_cast<size_t>(c.value_heads), keys = static_cast<size_t>(c.key_dim());
    std::vector<double> x(channels);
    for (size_t i = 0; i < channels; ++i) {
      double sum = layer.taps[i * kTaps + 3] * static_cast<double>(in.mixed[static_cast<size_t>(t) * channels + i]);
      for (size_t tap = 0; tap < 3; ++tap) sum += layer.taps[i * kTaps + tap] * last[tap][i];
      x[i] = sum / (1 + std::exp(-sum));
    }
    last.erase(last.begin());
    last.emplace_back(in.mixed.begin() + t * c.channels(), in.mixed.begin() + (t + 1) * c.channels());
    const auto unit = [&](size_t first, double scale) {
      double squares = 0;
      for (size_t i = first; i < first + d; ++i) squares += x[i] * x[i];
      for (size_t i = first; i < first + d; ++i) x[i] *= scale / std::sqrt(squares + 1e-6);
    };
    for (size_t h = 0; h < static_cast<size_t>(c.key_heads); ++h) unit(h * d, 1 / std::sqrt(static_cast<double>(d))), unit(keys + h * d, 1);

    std::vector<double> out(static_cast<size_t>(c.value_dim()));
    for (size_t h = 0; h < heads; ++h) {
      const size_t key_head = c.tiled ? h % static_cast<size_t>(c.key_heads) : h / (heads / static_cast<size_t>(c.key_heads)), at = static_cast<size_t>(t) * heads + h;
      const double *q = &x[key_head * d], *k = &x[keys + key_head * d], *v = &x[2 * keys + h * d];
      const double step = static_cast<double>(in.alpha[at]) + layer.decay_bias[h], decay = std::exp(layer.decay[h] * (step > 20 ? step : std::log1p(std::exp(step))));
      const double written = 1 / (1 + std::exp(-static_cast<double>(in.beta[at])));
      double* state = &s[h * d * d];
      for (size_t i = 0; i < d * d; ++i) state[i] *= decay;
      double squares = 0;
      for (size_t j = 0; j < d; ++j) {
        double known = 0, read = 0;
        for (size_t i = 0; i < d; ++i) known += state[i * d + j] * k[i];
        for (size_t i = 0; i < d; ++i) state[i * d + j] += k[i] * written * (v[j] - known);
        for (size_t i = 0; i < d; ++i) read += state[i * d + j] * q[i];
        out[h * d + j] = read;
        squares += read * read;
      }
      for (size_t j = 0; j < d; ++j) {
        const double gate = in.gate[static_cast<size_t>(t) * heads * d + h * d + j];
        out[h * d + j] *= layer.value_norm[j] / std::sqrt(squares / static_cast<double>(d) + static_cast<double>(kEpsilon)) * gate / (1 + std::exp(-gate));
      }
    }
    return out;
  }
};

// A layer on a device, with two states that take turns; of the two layers of the shape the second is used.
struct Running {
  std::unique_ptr<Backend> backend;
  const Layer& layer;
  RecurrentShape shape{layer.config, 2};
  WeightHandle taps, decay, decay_bias, value_norm;
  std::unique_ptr<RecurrentState> before, after;

  Running(const std::string& isa, const Layer& l) : backend(make_cpu_backend({2, Precision::kFloat32, isa})), layer(l) {
    const auto vector = [&](const std::vector<float>& values) {
      return backend->upload({DType::kF32, 1, static_cast<int64_t>(values.size()), reinterpret_cast<const std::byte*>(values.data()), static_cast<int64_t>(values.size() * sizeof(float))});
    };
    taps = vector(l.taps), decay = vector(l.decay), decay_bias = vector(l.decay_bias), value_norm = vector(l.value_norm);
    before = backend->allocate_recurrent(shape);
    after = backend->allocate_recurrent(shape);
    backend->clear_recurrent(*before);
    backend->clear_recurrent(*after);
  }
  Activation given(const std::vector<float>& values, int64_t first, int64_t tokens, int64_t cols) {
    const Activation x = backend->allocate(tokens, cols);
    std::copy_n(values.begin() + first * cols, tokens * cols, static_cast<float*>(x.data));
    return x;
  }
  // Rows first .. first + tokens - 1 of `in`.
  std::vector<float> run(const Inputs& in, int64_t first, int64_t tokens) {
    const RecurrentConfig& c = layer.config;
    Activation x[] = {given(in.mixed, first, tokens, c.channels()), given(in.gate, first, tokens, c.value_dim()), given(in.alpha, first, tokens, c.value_heads), given(in.beta, first, tokens, c.value_heads), backend->allocate(tokens, c.value_dim())};
    backend->delta_net(x[0], x[1], x[2], x[3], {taps.get(), decay.get(), decay_bias.get(), value_norm.get()}, kEpsilon, shape, 1, {before.get(), after.get()}, x[4]);
    std::swap(before, after);
    std::vector<float> out(static_cast<size_t>(tokens * c.value_dim()));
    std::copy_n(static_cast<const float*>(x[4].data), out.size(), out.begin());
    for (Activation& one : x) backend->release(one);
    return out;
  }
};

double worst(const std::vector<float>& got, Reference& reference, const Inputs& in, int64_t first, int64_t tokens) {
  double error = 0;
  const auto width = static_cast<size_t>(reference.layer.config.value_dim());
  for (int64_t t = 0; t < tokens; ++t) {
    const std::vector<double> expected = reference.token(in, first + t);
    double largest = 1;
    for (const double x : expected) largest = std::max(largest, std::fabs(x));
    for (size_t i = 0; i < width; ++i) {
      const double difference = std::fabs(static_cast<double>(got[static_cast<size_t>(t) * width + i]) - expected[i]);
      if (!(difference / largest <= error)) error = difference / largest;
    }
  }
  return error;
}

constexpr RecurrentConfig kConfigs[] = {{4, 2, 6, 32, kTaps, true}, {4, 2, 6, 32, kTaps, false}, {4, 3, 3, 16, kTaps, true}, {4, 1, 2, 128, kTaps, false}, {4, 2, 2, 112, kTaps, false}};

}  // namespace

TEST("the delta rule is that of a reference in double, in one go and in pieces") {
  for (const std::string& isa : available_cpu_isas()) {
    double all = 0;
    for (const RecurrentConfig& config : kConfigs) {
      const Layer layer(config, 7);
      for (const auto& [decays, alike] : {std::pair(0.0f, false), std::pair(30.0f, false), std::pair(-30.0f, true)}) {
        const Inputs in(config, 70, 11, decays, alike);
        Running whole(isa, layer), pieces(isa, layer);
        Reference first(layer), second(layer);
        all = std::max(all, worst(whole.run(in, 0, 70), first, in, 0, 70));
        int64_t at = 0;
        for (const int64_t tokens : {1, 1, 2, 3, 17, 45, 1}) {
          all = std::max(all, worst(pieces.run(in, at, tokens), second, in, at, tokens));
          at += tokens;
        }
      }
    }
    std::printf("  %s: worst %.2e\n", isa.c_str(), all);
    CHECK(all < 2e-5);
  }
}

TEST("a state that is copied over the host goes on to the last bit, and only its own layer's part is touched") {
  for (const std::string& isa : available_cpu_isas()) {
    const Layer layer(kConfigs[0], 3);
    const Inputs in(layer.config, 40, 5);
    Running one(isa, layer), other(isa, layer);
    one.run(in, 0, 25);
    std::vector<std::byte> bytes(static_cast<size_t>(one.backend->recurrent_bytes(one.shape)));
    one.backend->read_recurrent(*one.before, bytes);
    CHECK(std::all_of(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(bytes.size() / 2), [](std::byte b) { return b == std::byte{0}; }));
    other.backend->write_recurrent(*other.before, bytes);
    CHECK(one.run(in, 25, 15) == other.run(in, 25, 15));
  }
}

TEST("gates are taken from behind each head, and open by their sigmoid") {
  for (const std::string& isa : available_cpu_isas()) {
    const auto backend = make_cpu_backend({2, Precision::kFloat32, isa});
    constexpr int64_t kTokens = 19, kHeads = 3, kDim = 10;
    const Activation both = backend->allocate(kTokens, 2 * kHeads * kDim), q = backend->allocate(kTokens, kHeads * kDim), gates = backend->allocate(kTokens, kHeads * kDim);
    std::vector<float> values = some(kTokens * 2 * kHeads * kDim, 3, 1);
    values[13] = 200, values[14] = -200;
    std::copy(values.begin(), values.end(), static_cast<float*>(both.data));
    backend->split_gates(both, kDim, q, gates);
    backend->multiply_gates(q, gates);
    double error = 0;
    for (int64_t t = 0; t < kTokens; ++t)
      for (int64_t h = 0; h < kHeads; ++h)
        for (int64_t i = 0; i < kDim; ++i) {
          const size_t from = static_cast<size_t>((t * kHeads + h) * 2 * kDim + i);
          const double expected = static_cast<double>(values[from]) / (1 + std::exp(-static_cast<double>(values[from + kDim])));
          error = std::max(error, std::fabs(static_cast<const float*>(q.data)[(t * kHeads + h) * kDim + i] - expected));
        }
    CHECK(error < 5e-6);
  }
}

TEST_MAIN()
