#include "model/quant_formats.h"

#include <bit>

#include "base/error.h"
#include "check.h"
#include "model/files.h"

using namespace longview;

namespace {

constexpr DType kAll[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
                          DType::kQ5_0, DType::kQ5_1, DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K,
                          DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4};

}  // namespace

TEST("every block type dequantises bit for bit as the format's reference does") {
  const auto blocks = files::references(files::fixture("quant_blocks.safetensors"));
  for (const DType type : kAll) {
    const QuantFormat& format = format_of(type);
    if (type == DType::kF32) continue;  // stored as it is; below
    const files::Reference& raw = blocks.at(std::string(format.name) + ".raw");
    const std::vector<float> expected = blocks.at(std::string(format.name) + ".values").values<float>();
    const int64_t rows = raw.shape[0], cols = static_cast<int64_t>(expected.size()) / rows;
    CHECK(raw.shape[1] == row_bytes(type, cols));
    int64_t wrong = 0;
    for (int64_t row = 0; row < rows; ++row) {
      std::vector<float> actual(static_cast<size_t>(cols));
      dequantize_row(type, reinterpret_cast<const std::byte*>(raw.bytes.data()) + row * raw.shape[1],
                     actual.data(), cols);
      for (int64_t i = 0; i < cols; ++i)
        wrong += std::bit_cast<uint32_t>(actual[static_cast<size_t>(i)]) !=
                 std::bit_cast<uint32_t>(expected[static_cast<size_t>(row * cols + i)]);
    }
    if (wrong != 0)
      check::fail(__FILE__, __LINE__, format.name + (": values that differ: " + std::to_string(wrong)));
  }
}

TEST("plain floats pass through, also from unaligned bytes") {
  const float values[] = {1.5f, -0.0f, 3e38f};
  std::vector<std::byte> bytes(1 + sizeof(values));
  std::memcpy(bytes.data() + 1, values, sizeof(values));
  float out[3];
  dequantize_row(DType::kF32, bytes.data() + 1, out, 3);
  CHECK(std::memcmp(out, values, sizeof(values)) == 0);
}

TEST("rows are whole blocks") {
  CHECK(row_bytes(DType::kF32, 5) == 20);
  CHECK(row_bytes(DType::kQ5_0, 64) == 44);
  CHECK(row_bytes(DType::kQ6_K, 512) == 420);
  CHECK(row_bytes(DType::kMXFP4, 96) == 51);
  CHECK(row_bytes(DType::kQ8_0, int64_t{1} << 40) == (int64_t{1} << 35) * 34);
}

TEST("types have names, also those that the engine does not read") {
  for (const DType type : kAll) {
    CHECK(ggml_type_name(static_cast<uint32_t>(type)) == format_of(type).name);
    CHECK(readable_types().find(format_of(type).name) != std::string::npos);
  }
  CHECK(find_format(18) == nullptr);
  CHECK(ggml_type_name(18) == "IQ3_XXS");
  CHECK(ggml_type_name(4'000'000'000u) == "the unknown type 4000000000");
  CHECK_THROWS(format_of(static_cast<DType>(99)), kInternal);
}

TEST_MAIN()
