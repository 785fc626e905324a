// A GPU for tests of kernels: memory that fills itself with NaN, random inputs, errors against double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "base/half.h"
#include "check.h"
#include "cuda/library.h"

namespace gpu {

using longview::kernels::Library;
using longview::kernels::Status;

inline const Library& library() {
  const longview::cuda::Loaded& loaded = longview::cuda::load_library();
  if (!loaded.library) SKIP("no CUDA device: " + loaded.why);
  return *loaded.library;
}

inline longview::kernels::Stream stream() {
  static longview::kernels::Stream shared = [] {
    longview::kernels::Stream made = nullptr;
    if (library().open_device(0, &made) != 0) throw std::runtime_error("cannot open the GPU");
    return made;
  }();
  return shared;
}

inline void expect(Status status, const char* what) {
  if (status != 0) throw std::runtime_error(std::string(what) + ": " + library().status_text(status));
}
#define GPU(call) gpu::expect(gpu::library().call, #call)

inline longview::kernels::DeviceProperties properties() {
  longview::kernels::DeviceProperties p{};
  expect(library().device_properties(0, &p), "properties");
  return p;
}

// Typed memory on the device. Unwritten bytes are 0xff: NaN in every float format.
template <typename T>
class Memory {
 public:
  explicit Memory(size_t count) : count_(count) {
    expect(library().allocate(&data_, bytes()), "allocate");
    expect(library().fill(data_, 0xff, bytes(), stream()), "fill");
  }
  explicit Memory(const std::vector<T>& from) : Memory(from.size()) {
    expect(library().copy_to_device(data_, from.data(), bytes(), stream()), "copy");
    expect(library().synchronize(stream()), "copy");
  }
  ~Memory() { library().release(data_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  T* get() const { return static_cast<T*>(data_); }
  size_t bytes() const { return count_ * sizeof(T); }
  std::vector<T> read() const {
    std::vector<T> out(count_);
    expect(library().copy_to_host(out.data(), data_, bytes(), stream()), "read");
    expect(library().synchronize(stream()), "read");
    return out;
  }

 private:
  void* data_ = nullptr;
  size_t count_ = 0;
};

// What launch_attention keeps of parts of the keys, zero as it expects it.
inline Memory<float> attention_workspace(const longview::kernels::AttentionArgs& args) {
  return Memory<float>(std::vector<float>(static_cast<size_t>(library().attention_workspace_floats(args) + 1)));
}

// Of each head one, from scores that weigh nothing to such as weigh more than most keys.
inline std::vector<float> some_sinks(int64_t heads) {
  std::vector<float> sinks;
  for (int64_t h = 0; h < heads; ++h) sinks.push_back(static_cast<float>(h % 5) * 4 - 8);
  return sinks;
}

inline std::vector<uint16_t> random_bf16(size_t count, std::mt19937_64& random, float spread = 1.0f) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<uint16_t> out(count);
  for (uint16_t& x : out) x = longview::float_to_bf16(normal(random));
  return out;
}
inline std::vector<float> random_float(size_t count, std::mt19937_64& random, float spread = 1.0f) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> out(count);
  for (float& x : out) x = normal(random);
  return out;
}
inline double at(const std::vector<uint16_t>& x, size_t i) { return longview::bf16_to_float(x[i]); }
inline double at(const std::vector<float>& x, size_t i) { return x[i]; }

// |got - wanted| / |wanted| as vectors; infinite where anything is not a number.
template <typename T>
double relative_error(const std::vector<T>& got, const std::vector<double>& wanted) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const double d = at(got, i) - wanted[i];
    if (!std::isfinite(d)) return INFINITY;
    difference += d * d;
    norm += wanted[i] * wanted[i];
  }
  return std::sqrt(difference / norm);
}

// The largest relative_error of rows of `width`. One wrong row among thousands is lost in that of all.
template <typename T>
double worst_row_error(const std::vector<T>& got, const std::vector<double>& wanted, int64_t width) {
  double worst = 0;
  for (size_t first = 0; first < wanted.size(); first += static_cast<size_t>(width)) {
    const auto row = [&](const auto& x) { return std::decay_t<decltype(x)>(x.begin() + static_cast<std::ptrdiff_t>(first), x.begin() + static_cast<std::ptrdiff_t>(first) + width); };
    worst = std::max(worst, relative_error(row(got), row(wanted)));
  }
  return worst;
}

constexpr double kBf16Error = 4e-3;   // outputs rounded to bf16
constexpr double kFloatError = 1e-5;  // float32 sums of exact bf16 inputs

}  // namespace gpu
