#include "cpu/linear.h"

#include <algorithm>
#include <cstring>

#include "cpu/each_row.h"
#include "cpu/weight_panel.h"
#include "model/quant_formats.h"

namespace longview::cpu {
namespace {

constexpr int64_t kFewTokens = 8;      // up to here reading row by row beats packing (measured on the built-in model)
constexpr int64_t kRowsPerItem = 64;   // rows of a weight that a thread takes at a time

}  // namespace

Linear::Linear(const Kernels& kernels, Precision precision, ThreadPool& pool)
    : kernels_(kernels), precision_(precision), pool_(pool), rows_(static_cast<size_t>(pool.threads())), panels_(static_cast<size_t>(pool.threads())), outputs_(static_cast<size_t>(pool.threads())) {}

void Linear::run(const float* x, int64_t tokens, const TensorView& weight, const float* bias, float* out) {
  if (tokens <= kFewTokens || (precision_ == Precision::kInt8 && format_of(weight.type).block_elements > 1)) by_rows(x, tokens, weight, bias, out);
  else by_panels(x, tokens, weight, bias, out);
}

void Linear::by_rows(const float* x, int64_t tokens, const TensorView& weight, const float* bias, float* out) {
  const int64_t n = weight.rows, k = weight.cols, bytes = row_bytes(weight.type, k);
  const bool int8 = kernels_.dots_int8 && format_of(weight.type).block_elements > 1 && (precision_ == Precision::kInt8 || precision_ == Precision::kAuto);
  int8_t* codes = nullptr;
  float *scales = nullptr, *sums = nullptr;
  if (int8) {
    codes = input_.get<int8_t>(tokens * k);
    scales = input_scales_.get<float>(tokens * k / 32);
    sums = input_sums_.get<float>(tokens * k / 32);
    for (int64_t t = 0; t < tokens; ++t) kernels_.quantize_row(x + t * k, codes + t * k, scales + t * k / 32, sums + t * k / 32, k);
  }
  for (Scratch& scratch : rows_) scratch.get<float>(int8 ? tokens : k);
  pool_.parallel_for((n + kRowsPerItem - 1) / kRowsPerItem, [&](int64_t item, int thread) {
    for (int64_t row = item * kRowsPerItem; row < std::min(n, (item + 1) * kRowsPerItem); ++row) {
      const std::byte* source = weight.data + row * bytes;
      const float base = bias ? bias[row] : 0.0f;
      if (int8) {
        float* products = rows_[static_cast<size_t>(thread)].get<float>(tokens);
        kernels_.dots_int8(weight.type, source, codes, scales, sums, k, tokens, products);
        for (int64_t t = 0; t < tokens; ++t) out[t * n + row] = products[t] + base;
        continue;
      }
      float* values = rows_[static_cast<size_t>(thread)].get<float>(k);
      kernels_.dequantize(weight.type, source, values, k);
      for (int64_t t = 0; t < tokens; ++t) out[t * n + row] = kernels_.dot(x + t * k, values, k) + base;
    }
  });
}

Linear::Products Linear::products_of(const TensorView& weight) const {
  if (precision_ == Precision::kAuto && kernels_.gemm_int16 && format_of(weight.type).block_elements > 1) return Products::kInt16;
  if ((precision_ == Precision::kAuto || precision_ == Precision::kBFloat16) && kernels_.gemm_bf16 && weight.cols % 2 == 0) return Products::kBFloat16;
  return Products::kFloat32;
}

void Linear::by_panels(const float* x, int64_t tokens, const TensorView& weight, const float* bias, float* out) {
  const int64_t n = weight.rows, k = weight.cols;
  const Input input = rounded(x, tokens, k, products_of(weight));
  for (Scratch& scratch : rows_) scratch.get<float>(kPanel * k);
  for (Scratch& scratch : panels_) scratch.get<float>(kPanel * k);
  if (n % kPanel != 0)
    for (Scratch& scratch : outputs_) scratch.get<float>(tokens * kPanel);

  // With more threads than panels the tokens are split too; each part packs for itself.
  const int64_t panels = (n + kPanel - 1) / kPanel;
  const int64_t parts = std::clamp<int64_t>(2 * pool_.threads() / panels, 1, (tokens + 63) / 64);
  pool_.parallel_for(panels * parts, [&](int64_t item, int thread) {
    const int64_t first = item / parts * kPanel, width = std::min(kPanel, n - first);
    const int64_t begin = tokens * (item % parts) / parts, count = tokens * (item % parts + 1) / parts - begin;
    const bool ragged = width != kPanel;
    float* c = ragged ? outputs_[static_cast<size_t>(thread)].get<float>(tokens * kPanel) : out + begin * n + first;
    const int64_t ldc = ragged ? kPanel : n;
    auto* rows = rows_[static_cast<size_t>(thread)].get<float>(kPanel * k);
    auto* panel = panels_[static_cast<size_t>(thread)].get<float>(kPanel * k);
    switch (input.products) {
      case Products::kInt16: {
        const CodePanel packed = pack_codes(kernels_, weight, first, width, rows, panel);
        const int64_t block = begin * k / 32;
        kernels_.gemm_int16(count, kPanel, k, {input.codes.codes + begin * k, input.codes.scales + block, input.codes.sums + block}, packed, c, ldc);
        break;
      }
      case Products::kBFloat16:
        pack_bf16(kernels_, weight, first, width, rows, panel);
        kernels_.gemm_bf16(count, kPanel, k, input.bf16 + begin * input.ld, input.ld, reinterpret_cast<const uint32_t*>(panel), kPanel, c, ldc, false);
        break;
      case Products::kFloat32:
        pack_floats(kernels_, weight, first, width, rows, panel);
        kernels_.gemm_f32(count, kPanel, k, x + begin * k, k, panel, kPanel, c, ldc, false);
    }
    for (int64_t t = 0; t < count; ++t) {
      float* row = out + (begin + t) * n + first;
      if (ragged) std::memcpy(row, c + t * ldc, static_cast<size_t>(width) * sizeof(float));
      if (bias)
        for (int64_t i = 0; i < width; ++i) row[i] += bias[first + i];
    }
  });
}

Linear::Input Linear::rounded(const float* x, int64_t tokens, int64_t k, Products products) {
  Input input{products};
  if (products == Products::kInt16) {
    auto* codes = input_.get<int16_t>(tokens * k);
    auto* scales = input_scales_.get<float>(tokens * k / 32);
    auto* sums = input_sums_.get<int32_t>(tokens * k / 32);
    each_row(pool_, tokens, [&](int64_t t) { kernels_.quantize_row16(x + t * k, codes + t * k, scales + t * k / 32, sums + t * k / 32, k); });
    input.codes = {codes, scales, sums};
  } else if (products == Products::kBFloat16) {
    input.ld = k + 32;  // a power of two between rows would fall on the same cache sets
    auto* values = input_.get<uint16_t>(tokens * input.ld);
    each_row(pool_, tokens, [&](int64_t t) { kernels_.to_bf16(x + t * k, values + t * input.ld, k, 1.0f); });
    input.bf16 = values;
  }
  return input;
}

}  // namespace longview::cpu
