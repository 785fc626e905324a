#include "cpu/weight_panel.h"

#include <algorithm>

#include "model/quant_formats.h"

namespace longview::cpu {
namespace {

// Rows of `words` words of 32 bits each become columns.
void to_columns(const Kernels& kernels, const float* rows, int64_t ld, int64_t words, float* panel) {
  for (int64_t i = 0; i < kPanel; i += 16)
    kernels.transpose16(reinterpret_cast<const uint32_t*>(rows + i * ld), ld, words, reinterpret_cast<uint32_t*>(panel) + i, kPanel);
}

void pack_values(const Kernels& kernels, const TensorView& weight, int64_t first, int64_t width, bool bf16, float* rows, float* panel) {
  const int64_t k = weight.cols, bytes = row_bytes(weight.type, k);
  for (int64_t i = 0; i < width; ++i) {
    kernels.dequantize(weight.type, weight.data + (first + i) * bytes, rows + i * k, k);
    // In place: a row's bf16 values take the first half of its floats.
    if (bf16) kernels.to_bf16(rows + i * k, reinterpret_cast<uint16_t*>(rows + i * k), k, 1.0f);
  }
  std::fill(rows + width * k, rows + kPanel * k, 0.0f);
  to_columns(kernels, rows, k, bf16 ? k / 2 : k, panel);
}

}  // namespace

void pack_floats(const Kernels& kernels, const TensorView& weight, int64_t first, int64_t width, float* rows, float* panel) { pack_values(kernels, weight, first, width, false, rows, panel); }

void pack_bf16(const Kernels& kernels, const TensorView& weight, int64_t first, int64_t width, float* rows, float* panel) { pack_values(kernels, weight, first, width, true, rows, panel); }

CodePanel pack_codes(const Kernels& kernels, const TensorView& weight, int64_t first, int64_t width, float* rows, float* panel) {
  const int64_t k = weight.cols, bytes = row_bytes(weight.type, k), words = k / 2, blocks = k / 32;
  // Codes, behind them scales and minimums: less than two thirds of the room.
  auto* codes = reinterpret_cast<int16_t*>(rows);
  float *scales = rows + kPanel * words, *minimums = scales + kPanel * blocks;
  bool has_minimums = false;
  for (int64_t i = 0; i < width; ++i)
    has_minimums = kernels.unpack_codes(weight.type, weight.data + (first + i) * bytes, codes + i * k, scales + i * blocks, minimums + i * blocks, k);
  std::fill(codes + width * k, codes + kPanel * k, int16_t{0});
  std::fill(scales + width * blocks, scales + kPanel * blocks, 0.0f);
  std::fill(minimums + width * blocks, minimums + kPanel * blocks, 0.0f);

  float *packed_scales = panel + kPanel * words, *packed_minimums = packed_scales + kPanel * blocks;
  to_columns(kernels, rows, words, words, panel);
  to_columns(kernels, scales, blocks, blocks, packed_scales);
  if (has_minimums) to_columns(kernels, minimums, blocks, blocks, packed_minimums);
  return {reinterpret_cast<const int16_t*>(panel), packed_scales, has_minimums ? packed_minimums : nullptr, kPanel};
}

}  // namespace longview::cpu
