#include "cpu/coded_pages.h"

#include <algorithm>
#include <array>

#include "base/half.h"
#include "cpu/q8.h"

namespace longview::cpu {
namespace {

// Columns that go through the kernels at once: the scales of two rows of them lie on the stack.
constexpr int64_t kColumns = 128;
static_assert(kColumns >= kPageTokens && kColumns % kQ8Block == 0);
using Scales = std::array<float, kColumns>;

constexpr std::array<float, 2> kNoBase = {};

// A part of a pair matrix on its way to `out`, rows `ldo` elements apart.
struct Widened {
  const Kernels& kernels;
  const bool bf16;
  void* const out;
  const int64_t ldo;

  void put(int64_t pair, int64_t column, const int16_t* codes, const float* even, const float* odd, const float* base, int64_t n) const {
    auto* floats = static_cast<float*>(out) + 2 * pair * ldo + column;
    if (bf16) kernels.widen_pairs_of_codes(codes, even, odd, base, n, static_cast<uint32_t*>(out) + pair * ldo + column);
    else kernels.widen_codes(codes, even, odd, base, n, floats, floats + ldo);
  }
};

}  // namespace

void widen_keys(const Kernels& kernels, bool bf16, const CodedPage& at, int64_t from, int64_t tokens, void* out, int64_t ldo) {
  const int64_t d = at.storage.shape().head_dim;
  const bool four_bits = at.storage.shape().format == KvFormat::kQ4;
  const std::byte* keys = at.storage.keys(at.page, at.layer, at.head);
  const uint16_t* scales = at.storage.key_scales(at.page, at.layer, at.head) + from;
  const Widened to{kernels, bf16, out, ldo};
  Scales widened;
  for (int64_t i = 0; i < d / 2; i += four_bits ? 2 : 1) {
    if (i % (kQ8Block / 2) == 0)
      for (int64_t t = 0; t < tokens; ++t) widened[static_cast<size_t>(t)] = bf16_to_float(scales[i / (kQ8Block / 2) * kPageTokens + t]);
    if (!four_bits) {
      to.put(i, 0, reinterpret_cast<const int16_t*>(keys) + i * kPageTokens + from, widened.data(), widened.data(), kNoBase.data(), tokens);
      continue;
    }
    const auto* row = reinterpret_cast<const uint8_t*>(keys) + i * kPageTokens + from;
    const uint16_t* reference = at.storage.reference(at.page, at.layer, at.head) + 2 * i;
    std::array<std::array<int16_t, kColumns>, 2> pairs;
    kernels.split_codes(row, row + kPageTokens, tokens, pairs[0].data(), pairs[1].data());
    for (int64_t pair = 0; pair < 2; ++pair) {
      const std::array<float, 2> base = {bf16_to_float(reference[2 * pair]), bf16_to_float(reference[2 * pair + 1])};
      to.put(i + pair, 0, pairs[static_cast<size_t>(pair)].data(), widened.data(), widened.data(), base.data(), tokens);
    }
  }
}

void widen_values(const Kernels& kernels, bool bf16, const CodedPage& at, int64_t from, int64_t tokens, void* out) {
  const int64_t width = at.storage.value_width(), half = width / 2;
  const bool four_bits = at.storage.shape().format == KvFormat::kQ4;
  const std::byte* values = at.storage.values(at.page, at.layer, at.head);
  const uint16_t* scales = at.storage.value_scales(at.page, at.layer, at.head) + from;
  const Widened to{kernels, bf16, out, width};
  Scales even, odd;
  std::array<int16_t, kMostQ4Dims> pairs;  // of 4-bit codes
  for (int64_t pair = 0; pair < tokens / 2; ++pair) {
    const int16_t* codes = pairs.data();
    if (four_bits) {
      const auto* row = reinterpret_cast<const uint8_t*>(values) + (from + 2 * pair) * half;
      kernels.split_codes(row, row + half, half, pairs.data(), pairs.data() + half);
    } else {
      codes = reinterpret_cast<const int16_t*>(values) + (from / 2 + pair) * width;
    }
    for (int64_t first = 0; first < width; first += kColumns) {
      const int64_t columns = std::min(kColumns, width - first);
      for (int64_t j = 0; j < columns; j += kQ8Block) {
        const uint16_t* block = scales + (first + j) / kQ8Block * kPageTokens + 2 * pair;
        std::fill_n(even.begin() + j, kQ8Block, bf16_to_float(block[0]));
        std::fill_n(odd.begin() + j, kQ8Block, bf16_to_float(block[1]));
      }
      to.put(pair, first, codes + first, even.data(), odd.data(), kNoBase.data(), columns);
    }
  }
}

}  // namespace longview::cpu
