#include "cpu/linear.h"

#include <algorithm>
#include <cstring>

#include "cpu/kv_pages.h"
#include "model/quant_formats.h"

namespace longview::cpu {
namespace {

constexpr int64_t kPanel = 32;         // rows of a weight that are packed together
constexpr int64_t kFewTokens = 6;      // up to here reading row by row beats packing (measured on the built-in model)
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
  const bool int8 = kernels_.dot_int8 && format_of(weight.type).block_elements > 1 && (precision_ == Precision::kInt8 || precision_ == Precision::kAuto);
  int8_t* codes = nullptr;
  float* scales = nullptr;
  int32_t* sums = nullptr;
  if (int8) {
    codes = input_.get<int8_t>(tokens * k);
    scales = input_scales_.get<float>(tokens * k / 32);
    sums = input_sums_.get<int32_t>(tokens * k / 32);
    for (int64_t t = 0; t < tokens; ++t) kernels_.quantize_row(x + t * k, codes + t * k, scales + t * k / 32, sums + t * k / 32, k);
  } else {
    for (Scratch& scratch : rows_) scratch.get<float>(k);
  }
  pool_.parallel_for((n + kRowsPerItem - 1) / kRowsPerItem, [&](int64_t item, int thread) {
    for (int64_t row = item * kRowsPerItem; row < std::min(n, (item + 1) * kRowsPerItem); ++row) {
      const std::byte* source = weight.data + row * bytes;
      const float base = bias ? bias[row] : 0.0f;
      if (int8) {
        for (int64_t t = 0; t < tokens; ++t)
          out[t * n + row] = kernels_.dot_int8(weight.type, source, codes + t * k, scales + t * k / 32, sums + t * k / 32, k) + base;
        continue;
      }
      float* values = rows_[static_cast<size_t>(thread)].get<float>(k);
      kernels_.dequantize(weight.type, source, values, k);
      for (int64_t t = 0; t < tokens; ++t) out[t * n + row] = kernels_.dot(x + t * k, values, k) + base;
    }
  });
}

void Linear::by_panels(const float* x, int64_t tokens, const TensorView& weight, const float* bias, float* out) {
  const int64_t n = weight.rows, k = weight.cols, bytes = row_bytes(weight.type, k);
  const bool bf16 = kernels_.gemm_bf16 && k % 2 == 0 && (precision_ == Precision::kAuto || precision_ == Precision::kBFloat16);
  const int64_t lda = bf16 ? k + 32 : k;  // a power of two between rows would fall on the same cache sets
  uint16_t* input = nullptr;
  if (bf16) {
    input = input_.get<uint16_t>(tokens * lda);
    pool_.parallel_for((tokens + 15) / 16, [&](int64_t item, int) {
      for (int64_t t = item * 16; t < std::min(tokens, (item + 1) * 16); ++t) kernels_.to_bf16(x + t * k, input + t * lda, k, 1.0f);
    });
  }
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
    float* rows = rows_[static_cast<size_t>(thread)].get<float>(kPanel * k);
    for (int64_t i = 0; i < width; ++i) {
      kernels_.dequantize(weight.type, weight.data + (first + i) * bytes, rows + i * k, k);
      // In place: a row's bf16 values take the first half of its floats.
      if (bf16) kernels_.to_bf16(rows + i * k, reinterpret_cast<uint16_t*>(rows + i * k), k, 1.0f);
    }
    std::memset(rows + width * k, 0, static_cast<size_t>((kPanel - width) * k) * sizeof(float));
    auto* panel = panels_[static_cast<size_t>(thread)].get<uint32_t>(kPanel * k);
    const int64_t depth = bf16 ? k / 2 : k;
    for (int64_t i = 0; i < kPanel; i += 16) kernels_.transpose16(reinterpret_cast<const uint32_t*>(rows + i * k), k, depth, panel + i, kPanel);

    const bool ragged = width != kPanel;
    float* c = ragged ? outputs_[static_cast<size_t>(thread)].get<float>(tokens * kPanel) : out + begin * n + first;
    const int64_t ldc = ragged ? kPanel : n;
    if (bf16) kernels_.gemm_bf16(count, kPanel, k, input + begin * lda, lda, panel, kPanel, c, ldc, false);
    else kernels_.gemm_f32(count, kPanel, k, x + begin * k, k, reinterpret_cast<const float*>(panel), kPanel, c, ldc, false);
    for (int64_t t = 0; t < count; ++t) {
      float* row = out + (begin + t) * n + first;
      if (ragged) std::memcpy(row, c + t * ldc, static_cast<size_t>(width) * sizeof(float));
      if (bias)
        for (int64_t i = 0; i < width; ++i) row[i] += bias[first + i];
    }
  });
}

}  // namespace longview::cpu
