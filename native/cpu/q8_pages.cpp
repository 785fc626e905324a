#include "cpu/q8_pages.h"

#include <algorithm>
#include <array>

#include "base/half.h"
#include "cpu/q8.h"

namespace longview::cpu {
namespace {

// Columns that go through the kernel at once: the scales of two rows of them lie on the stack.
constexpr int64_t kColumns = 128;
static_assert(kColumns >= kPageTokens && kColumns % kQ8Block == 0);
using Scales = std::array<float, kColumns>;

}  // namespace

void widen_q8_keys(const Kernels& kernels, bool bf16, const Q8Page& at, int64_t from, int64_t tokens, void* out, int64_t ldo) {
  const int64_t d = at.storage.shape().head_dim;
  const auto* codes = reinterpret_cast<const int16_t*>(at.storage.keys(at.page, at.layer, at.head)) + from;
  const uint16_t* scales = at.storage.key_scales(at.page, at.layer, at.head) + from;
  Scales widened;
  for (int64_t i = 0; i < d / 2; ++i) {
    if (i % (kQ8Block / 2) == 0)
      for (int64_t t = 0; t < tokens; ++t) widened[static_cast<size_t>(t)] = bf16_to_float(scales[i / (kQ8Block / 2) * kPageTokens + t]);
    const int16_t* row = codes + i * kPageTokens;
    if (bf16) kernels.widen_q8_pairs(row, widened.data(), widened.data(), tokens, static_cast<uint32_t*>(out) + i * ldo);
    else kernels.widen_q8(row, widened.data(), widened.data(), tokens, static_cast<float*>(out) + 2 * i * ldo, static_cast<float*>(out) + (2 * i + 1) * ldo);
  }
}

void widen_q8_values(const Kernels& kernels, bool bf16, const Q8Page& at, int64_t from, int64_t tokens, void* out) {
  const int64_t width = at.storage.value_width();
  const auto* codes = reinterpret_cast<const int16_t*>(at.storage.values(at.page, at.layer, at.head)) + from / 2 * width;
  const uint16_t* scales = at.storage.value_scales(at.page, at.layer, at.head) + from;
  Scales even, odd;
  for (int64_t pair = 0; pair < tokens / 2; ++pair)
    for (int64_t first = 0; first < width; first += kColumns) {
      const int64_t columns = std::min(kColumns, width - first);
      for (int64_t j = 0; j < columns; j += kQ8Block) {
        const uint16_t* block = scales + (first + j) / kQ8Block * kPageTokens + 2 * pair;
        std::fill_n(even.begin() + j, kQ8Block, bf16_to_float(block[0]));
        std::fill_n(odd.begin() + j, kQ8Block, bf16_to_float(block[1]));
      }
      const int16_t* row = codes + pair * width + first;
      auto* floats = static_cast<float*>(out) + 2 * pair * width + first;
      if (bf16) kernels.widen_q8_pairs(row, even.data(), odd.data(), columns, static_cast<uint32_t*>(out) + pair * width + first);
      else kernels.widen_q8(row, even.data(), odd.data(), columns, floats, floats + width);
    }
}

}  // namespace longview::cpu
