// Every code path's decoding of stored weights is the scalar one's, bit for bit; that one is held to reference values in
// model/quant_formats_test.
#include <cstring>
#include <random>

#include "check.h"
#include "cpu/cpu_features.h"
#include "model/quant_formats.h"

using namespace longview;

TEST("all weight types are decoded alike on every code path") {
  std::mt19937_64 random(7);
  for (const cpu::Kernels* kernels : cpu::available_kernels())
    for (const DType type : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4})
      for (const int64_t elements : {256, 1024}) {
        // Any bytes are a row; what they mean may be a NaN, whose payload is not held to.
        std::vector<std::byte> row(static_cast<size_t>(row_bytes(type, elements)) + 1);
        for (std::byte& byte : row) byte = static_cast<std::byte>(random());
        std::vector<float> expected(static_cast<size_t>(elements)), got(expected.size());
        // Rows of safetensors may lie at odd addresses.
        dequantize_row(type, row.data() + 1, expected.data(), elements);
        kernels->dequantize(type, row.data() + 1, got.data(), elements);
        for (size_t i = 0; i < got.size(); ++i)
          if (std::memcmp(&got[i], &expected[i], sizeof(float)) != 0 && !(std::isnan(got[i]) && std::isnan(expected[i]))) {
            check::fail(__FILE__, __LINE__, std::string(kernels->isa) + ", " + format_of(type).name + ", element " + std::to_string(i) + ": " + std::to_string(got[i]) + ", not " + std::to_string(expected[i]));
            break;
          }
      }
}

TEST_MAIN()
