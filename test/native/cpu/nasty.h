// Inputs made nasty on purpose, references in double, and errors with the worst row named: shared by the CPU
// backend's tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/half.h"
#include "check.h"
#include "model/quant_formats.h"

namespace nasty {

using longview::Activation;
using longview::Backend;
using longview::DType;
using longview::Precision;
using longview::TensorView;

inline constexpr DType kAllTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0,
                                      DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                      DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  uint32_t bits() { return static_cast<uint32_t>(engine_()); }
  int64_t below(int64_t n) { return static_cast<int64_t>(engine_() % static_cast<uint64_t>(n)); }
  float normal() { return normal_(engine_); }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<float> normal_{0, 1};
};

// Normal values with outliers: one element in 64 is 30 times larger, some are zero or tiny.
inline std::vector<float> values(Random& random, int64_t count, float scale = 1) {
  std::vector<float> all(static_cast<size_t>(count));
  for (float& value : all) {
    const uint32_t kind = random.bits() % 64;
    value = random.normal() * scale * (kind == 0 ? 30.0f : kind == 1 ? 1e-20f : 1.0f);
    if (kind == 2) value = 0;
  }
  return all;
}

// A finite half of ordinary size: 2^-7 to 2^1 with any sign.
inline uint16_t half(Random& random) {
  const uint32_t exponent = 8 + random.bits() % 8;
  return static_cast<uint16_t>((random.bits() & 0x83ff) | exponent << 10);
}

// A matrix of any stored type with every code and finite scales, one byte off alignment.
struct Matrix {
  Matrix(Random& random, DType type, int64_t rows, int64_t cols) {
    const int64_t stride = longview::row_bytes(type, cols);
    const longview::QuantFormat& format = longview::format_of(type);
    bytes.resize(static_cast<size_t>(rows * stride + 1));
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.bits());
    const int64_t blocks = rows * cols / format.block_elements;
    for (int64_t i = 0; i < blocks; ++i) {
      std::byte* block = bytes.data() + 1 + i * format.block_bytes;
      const auto put = [&](int64_t at, auto value) { std::memcpy(block + at, &value, sizeof(value)); };
      if (type == DType::kF32) put(0, values(random, 1)[0] * 0.05f);
      else if (type == DType::kBF16) put(0, longview::float_to_bf16(values(random, 1)[0] * 0.05f));
      else if (type == DType::kQ6_K) put(208, half(random));
      else put(0, half(random));
      if (type == DType::kQ4_1 || type == DType::kQ5_1 || type == DType::kQ4_K || type == DType::kQ5_K)
        put(2, half(random));
    }
    view = {type, rows, cols, bytes.data() + 1, rows * stride};
    floats.resize(static_cast<size_t>(rows * cols));
    for (int64_t i = 0; i < rows; ++i)
      longview::dequantize_row(type, view.data + i * stride, floats.data() + i * cols, cols);
  }

  std::vector<std::byte> bytes;
  TensorView view;
  std::vector<float> floats;
};

// A row of float32 values as a matrix: norms and biases.
inline TensorView vector_view(const std::vector<float>& source) {
  return {DType::kF32, 1, static_cast<int64_t>(source.size()),
          reinterpret_cast<const std::byte*>(source.data()), static_cast<int64_t>(source.size() * 4)};
}

// A device matrix that frees itself.
class Buffer {
 public:
  Buffer(Backend& backend, int64_t rows, int64_t cols)
      : backend_(backend), activation_(backend.allocate(rows, cols)) {
    std::fill_n(data(), rows * cols, std::numeric_limits<float>::quiet_NaN());
  }
  Buffer(Backend& backend, int64_t rows, int64_t cols, const std::vector<float>& source)
      : Buffer(backend, rows, cols) {
    std::copy(source.begin(), source.end(), data());
  }
  ~Buffer() { backend_.release(activation_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  operator Activation() const { return activation_; }  // NOLINT: used as the activation that it is
  float* data() const { return static_cast<float*>(activation_.data); }
  std::vector<float> copy() const { return {data(), data() + activation_.rows * activation_.cols}; }

 private:
  Backend& backend_;
  Activation activation_;
};

// The largest error of a result over what its arithmetic may lose, and the row where it is.
struct Worst {
  double ratio = 0;
  int64_t row = -1;
  double absolute = 0;

  void add(int64_t at_row, double actual, double expected, double allowed) {
    const double error = std::fabs(actual - expected);
    const double now = std::isfinite(actual) ? error / allowed : std::numeric_limits<double>::infinity();
    absolute = std::max(absolute, error);
    if (!(now <= ratio)) {
      ratio = now;
      row = at_row;
    }
  }
  // Fails with the figures unless every error was allowed.
  void check(const std::string& what) const {
    if (ratio <= 1) return;
    check::fail(__FILE__, __LINE__,
                what + ": row " + std::to_string(row) + " is off by " + std::to_string(ratio) +
                    " of the allowed error (largest error " + std::to_string(absolute) + ")");
  }
};

inline const char* name(Precision precision) {
  switch (precision) {
    case Precision::kAuto: return "auto";
    case Precision::kFloat32: return "float32";
    case Precision::kBFloat16: return "bfloat16";
    case Precision::kInt8: return "int8";
  }
  return "";
}

inline bool has_bf16(const std::string& isa) { return isa == "amx" || isa == "avx512bf16"; }

// Every code path of this machine with every arithmetic that it has.
struct Path {
  std::string isa;
  Precision precision;
  std::string name() const { return isa + " " + nasty::name(precision); }
};
inline std::vector<Path> paths() {
  std::vector<Path> all;
  for (const std::string& isa : longview::available_cpu_isas()) {
    all.push_back({isa, Precision::kFloat32});
    all.push_back({isa, Precision::kAuto});
    if (has_bf16(isa)) all.push_back({isa, Precision::kBFloat16});
    if (isa != "scalar") all.push_back({isa, Precision::kInt8});
  }
  return all;
}
inline std::unique_ptr<Backend> backend(const Path& path, int threads = 2) {
  return longview::make_cpu_backend({threads, path.precision, path.isa});
}

}  // namespace nasty
