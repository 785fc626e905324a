#include "model/quant_formats.h"

#include "base/error.h"
#include "base/half.h"

namespace longview {
namespace {

using Block = const uint8_t*;

float half_at(Block p) {
  return half_to_float(load<uint16_t>(p));
}

void q4_0(Block b, float* out) {
  const float d = half_at(b);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>((b[2 + j] & 15) - 8);
    out[j + 16] = d * static_cast<float>((b[2 + j] >> 4) - 8);
  }
}

void q4_1(Block b, float* out) {
  const float d = half_at(b), m = half_at(b + 2);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>(b[4 + j] & 15) + m;
    out[j + 16] = d * static_cast<float>(b[4 + j] >> 4) + m;
  }
}

void q5_0(Block b, float* out) {
  const float d = half_at(b);
  const uint32_t high = load<uint32_t>(b + 2);
  for (int j = 0; j < 16; ++j) {
    const int low = (b[6 + j] & 15) | static_cast<int>(((high >> j) & 1) << 4);
    const int upper = (b[6 + j] >> 4) | static_cast<int>(((high >> (j + 16)) & 1) << 4);
    out[j] = d * static_cast<float>(low - 16);
    out[j + 16] = d * static_cast<float>(upper - 16);
  }
}

void q5_1(Block b, float* out) {
  const float d = half_at(b), m = half_at(b + 2);
  const uint32_t high = load<uint32_t>(b + 4);
  for (int j = 0; j < 16; ++j) {
    const int low = (b[8 + j] & 15) | static_cast<int>(((high >> j) & 1) << 4);
    const int upper = (b[8 + j] >> 4) | static_cast<int>(((high >> (j + 16)) & 1) << 4);
    out[j] = d * static_cast<float>(low) + m;
    out[j + 16] = d * static_cast<float>(upper) + m;
  }
}

void q8_0(Block b, float* out) {
  const float d = half_at(b);
  for (int j = 0; j < 32; ++j) out[j] = d * static_cast<float>(static_cast<int8_t>(b[2 + j]));
}

// Q4_K and Q5_K: eight sub-blocks of 32 with a 6-bit scale and minimum each; Q5_K's fifth bits stand apart.
void q45_k(Block b, Block high, Block low, float* out) {
  const float d = half_at(b), dmin = half_at(b + 2);
  for (int s = 0; s < 8; ++s) {
    uint8_t scale, minimum;
    k_scale_min(s, b + 4, scale, minimum);
    const float ds = d * static_cast<float>(scale), ms = dmin * static_cast<float>(minimum);
    for (int l = 0; l < 32; ++l) {
      const uint8_t byte = low[32 * (s / 2) + l];
      int q = (s & 1) ? byte >> 4 : byte & 15;
      if (high) q |= ((high[l] >> s) & 1) << 4;
      out[32 * s + l] = ds * static_cast<float>(q) - ms;
    }
  }
}

void q6_k(Block b, float* out) {
  const auto* scales = reinterpret_cast<const int8_t*>(b + 192);
  const float d = half_at(b + 208);
  for (int half = 0; half < 2; ++half) {
    Block ql = b + 64 * half, qh = b + 128 + 32 * half;
    for (int i = 0; i < 128; ++i) {
      const int l = i & 31, quarter = i >> 5;
      const int nibble = quarter < 2 ? ql[l + 32 * quarter] & 15 : ql[l + 32 * (quarter - 2)] >> 4;
      const int q = nibble | (((qh[l] >> (2 * quarter)) & 3) << 4);
      const int at = 128 * half + i;
      out[at] = d * static_cast<float>(scales[at / 16]) * static_cast<float>(q - 32);
    }
  }
}

void q3_k(Block b, float* out) {
  Block high = b, low = b + 32;
  const float d = half_at(b + 108);
  for (int i = 0; i < 256; ++i) {
    const int l = i % 32, s = i / 32;  // eight times 32 elements
    const int q = ((low[32 * (s / 4) + l] >> (2 * (s % 4))) & 3) - ((high[l] >> s) & 1 ? 0 : 4);
    out[i] = d * static_cast<float>(q3_k_scale(i / 16, b + 96)) * static_cast<float>(q);
  }
}

// 32 codes of 4 bits by a table: those of the low bits first.
void by_table(const int8_t (&values)[16], float scale, Block codes, float* out) {
  for (int j = 0; j < 16; ++j) {
    out[j] = scale * static_cast<float>(values[codes[j] & 15]);
    out[j + 16] = scale * static_cast<float>(values[codes[j] >> 4]);
  }
}

void iq4_xs(Block b, float* out) {
  const float d = half_at(b);
  for (int s = 0; s < 8; ++s) by_table(kIQ4Values, d * static_cast<float>(iq4_xs_scale(s, b)), b + 8 + 16 * s, out + 32 * s);
}

void dequantize_block(DType type, Block b, float* out) {
  switch (type) {
    case DType::kF32: *out = load<float>(b); return;
    case DType::kF16: *out = half_at(b); return;
    case DType::kBF16: *out = bf16_to_float(load<uint16_t>(b)); return;
    case DType::kQ4_0: return q4_0(b, out);
    case DType::kQ4_1: return q4_1(b, out);
    case DType::kQ5_0: return q5_0(b, out);
    case DType::kQ5_1: return q5_1(b, out);
    case DType::kQ8_0: return q8_0(b, out);
    case DType::kQ3_K: return q3_k(b, out);
    case DType::kQ4_K: return q45_k(b, nullptr, b + 16, out);
    case DType::kQ5_K: return q45_k(b, b + 16, b + 48, out);
    case DType::kQ6_K: return q6_k(b, out);
    case DType::kIQ4_NL: return by_table(kIQ4Values, half_at(b), b + 2, out);
    case DType::kIQ4_XS: return iq4_xs(b, out);
    case DType::kMXFP4: return by_table(kMXFP4Values, half_power(b[0]), b + 1, out);
  }
}

}  // namespace

namespace {

struct Row {
  DType type;
  QuantFormat format;
};
constexpr Row kFormats[] = {
    {DType::kF32, {"F32", 1, 4}},       {DType::kF16, {"F16", 1, 2}},
    {DType::kBF16, {"BF16", 1, 2}},     {DType::kQ8_0, {"Q8_0", 32, 34}},
    {DType::kQ4_0, {"Q4_0", 32, 18}},   {DType::kQ4_1, {"Q4_1", 32, 20}},
    {DType::kQ5_0, {"Q5_0", 32, 22}},   {DType::kQ5_1, {"Q5_1", 32, 24}},
    {DType::kQ3_K, {"Q3_K", 256, 110}}, {DType::kQ4_K, {"Q4_K", 256, 144}},
    {DType::kQ5_K, {"Q5_K", 256, 176}}, {DType::kQ6_K, {"Q6_K", 256, 210}},
    {DType::kIQ4_NL, {"IQ4_NL", 32, 18}}, {DType::kIQ4_XS, {"IQ4_XS", 256, 136}},
    {DType::kMXFP4, {"MXFP4", 32, 17}},
};

}  // namespace

const QuantFormat* find_format(uint32_t type) {
  for (const Row& row : kFormats)
    if (static_cast<uint32_t>(row.type) == type) return &row.format;
  return nullptr;
}

const QuantFormat& format_of(DType type) {
  const QuantFormat* found = find_format(static_cast<uint32_t>(type));
  LONGVIEW_CHECK(found, kInternal, "weight type %u has no format", static_cast<unsigned>(type));
  return *found;
}

std::string ggml_type_name(uint32_t type) {
  static constexpr const char* kNames[] = {
      "F32",   "F16",        "Q4_0",       "Q4_1",       "Q4_2",     "Q4_3",     "Q5_0",
      "Q5_1",  "Q8_0",       "Q8_1",       "Q2_K",       "Q3_K",     "Q4_K",     "Q5_K",
      "Q6_K",  "Q8_K",       "IQ2_XXS",    "IQ2_XS",     "IQ3_XXS",  "IQ1_S",    "IQ4_NL",
      "IQ3_S", "IQ2_S",      "IQ4_XS",     "I8",         "I16",      "I32",      "I64",
      "F64",   "IQ1_M",      "BF16",       "Q4_0_4_4",   "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",
      "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4",    "NVFP4"};
  if (type < sizeof(kNames) / sizeof(kNames[0])) return kNames[type];
  return format("the unknown type %u", type);
}

std::string readable_types() {
  std::string list;
  constexpr size_t kCount = sizeof(kFormats) / sizeof(kFormats[0]);
  for (size_t i = 0; i < kCount; ++i) {
    list += i == 0 ? "" : i + 1 == kCount ? " and " : ", ";
    list += kFormats[i].format.name;
  }
  return list;
}

int64_t row_bytes(DType type, int64_t cols) {
  const QuantFormat& format = format_of(type);
  return cols / format.block_elements * format.block_bytes;
}

void dequantize_row(DType type, const std::byte* source, float* destination, int64_t n) {
  const QuantFormat& format = format_of(type);
  Block block = reinterpret_cast<Block>(source);
  for (int64_t i = 0; i < n; i += format.block_elements, block += format.block_bytes)
    dequantize_block(type, block, destination + i);
}

}  // namespace longview
