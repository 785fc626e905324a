// e4m3 pages on the GPU: scales and codes, copies in bf16, means, and attention that reads the codes.
#include <set>

#include "kernels/narrow_pages.h"

using namespace narrow_pages;

namespace {

// `scale`: of the blocks of the first page, where it was begun before.
void check_append(const Append& append, float scale = 1) {
  const Appended a(append, PageFormat::kE4M3, scale);
  int64_t wrong_scales = 0, wrong_codes = 0;
  for (int64_t first = 0; first < append.tokens; first += kPageTokens - a.token_of(first))
    for (int64_t g = 0; g < a.kKvHeads; ++g)
      for (int is_value = 0; is_value < 2; ++is_value) {
        const Page p = a.page_of(first);
        const int64_t end = std::min(append.tokens, first + kPageTokens - a.token_of(first));
        const float got = load<float>(p.block(a.kLayer, g, is_value) + p.scale_offset(0, 0));
        double largest = 0;
        for (int64_t t = first; t < end; ++t)
          for (int64_t i = 0; i < append.d; ++i) {
            const double x = std::fabs(a.wanted(is_value, t, g, i));
            if (std::isfinite(static_cast<float>(x))) largest = std::max(largest, x);
          }
        int exponent = 0;
        wrong_scales += std::frexp(got, &exponent) != 0.5f;
        if (a.token_of(first) > 0) wrong_scales += got != scale;
        else if (largest == 0) wrong_scales += got != 1;
        else if (got == 0x1p-100f) wrong_scales += !(largest <= got * 7);
        else if (got == 0x1p100f) wrong_scales += !(largest >= got * 3.5f);
        else wrong_scales += !(largest / got >= 3.5 * (1 - 1e-5) && largest / got < 7 * (1 + 1e-5));
        // Within half a step of three bits of fraction or of the smallest code, and what float32 leaves of a rotation; the largest code
        // where values are beyond it; no number where there was none.
        for (int64_t t = first; t < end; ++t) {
          double of_row = 0;
          for (int64_t i = 0; i < append.d; ++i)
            if (const double x = std::fabs(a.wanted(is_value, t, g, i)); std::isfinite(x)) of_row = std::max(of_row, x);
          for (int64_t i = 0; i < append.d; ++i) {
            const double wanted = a.wanted(is_value, t, g, i), x = decoded_e4m3(p.block(a.kLayer, g, is_value)[p.offset(is_value, a.token_of(t), i)]) * got, most = 448.0 * got;
            if (std::isnan(wanted)) wrong_codes += !std::isnan(x);
            else wrong_codes += !(std::fabs(x - std::clamp(wanted, -most, most)) <= std::min(std::fabs(wanted), most) * 0x1p-4 + of_row * 1e-6 + got * 0x1.01p-10);
          }
        }
      }
  CHECK(wrong_scales == 0);
  CHECK(wrong_codes == 0);
}

}  // namespace

TEST("offsets are a permutation, and V's are those of a thread's scores") {
  gpu::library();  // skips as the others do
  for (const int64_t d : {64, 128, 256}) {
    std::set<int64_t> keys, values;
    for (int64_t t = 0; t < kPageTokens; ++t)
      for (int64_t i = 0; i < d; ++i) keys.insert(kernels::e4m3_key_offset(d, t, i)), values.insert(kernels::e4m3_value_offset(t, i));
    for (const auto& all : {keys, values}) CHECK(static_cast<int64_t>(all.size()) == kPageTokens * d && *all.begin() == 0 && *all.rbegin() == kPageTokens * d - 1);
  }
  for (int64_t j = 0; j < 4; ++j)
    for (int64_t t = 0; t < 4; ++t)
      for (int64_t e = 0; e < 2; ++e) CHECK(kernels::e4m3_value_offset(j * 8 + 2 * t + e, 0) == j / 2 * 16 + 4 * t + j % 2 * 2 + e);
}

TEST("a page's first write chooses its scale, codes are the nearest, whatever the values; queries are rotated; nothing else is written") {
  for (const int32_t adjacent : {0, 1})
    for (const Append& c : {Append{128, 128, 64, 203, 77, adjacent}, Append{64, 64, 32, 300, 100, adjacent}, Append{128, 128, 32, 9, 125, adjacent}, Append{96, 128, 48, 50, 0, adjacent},
                            Append{48, 64, 12, 131, 255, adjacent}, Append{80, 128, 40, 3, 126, adjacent}, Append{128, 128, 64, 1, 127, adjacent}, Append{64, 64, 32, 1, 300, adjacent},
                            Append{128, 128, 64, 1, 256, adjacent}, Append{128, 128, 64, 384, 128, adjacent}, Append{64, 64, 32, 140, 0, adjacent, Values::kZero}, Append{96, 128, 48, 1, 129, adjacent}, Append{128, 128, 64, 1, 384, adjacent, Values::kZero}, Append{64, 64, 32, 1, 0, adjacent, Values::kZero},
                            Append{256, 256, 32, 203, 77, adjacent}, Append{256, 256, 128, 9, 125, adjacent}, Append{256, 256, 32, 1, 127, adjacent}, Append{256, 256, 12, 140, 0, adjacent}, Append{192, 256, 32, 131, 255, adjacent}, Append{256, 256, 32, 1, 384, adjacent}})
      for (const float scale : {1.0f, 0x1p-9f, 0x1p90f}) check_append(c, scale);
}

TEST("copies in bf16 are the values, and carry the means") { check_copies(PageFormat::kE4M3); }

TEST("a full page's means are those of what it keeps") { check_means(PageFormat::kE4M3); }

TEST("few queries over the codes: ragged lengths, groups, splits, positions on the device") { check_few_queries(PageFormat::kE4M3); }

TEST("many queries, multiplied as codes: ragged chunks behind ragged prefixes") {
  if (gpu::properties().major != 9) SKIP("this takes compute capability 9.0");
  for (const int64_t d : {64, 128})
    for (const Case& c : {Case{128, 0, 9, 3, d}, Case{300, 1, 4, 1, d}, Case{129, 127, 8, 2, d}, Case{65, 1000, 3, 3, d}, Case{1000, 333, 9, 3, d}, Case{77, 4096, 12, 2, d}, Case{400, 2901, 28, 4, d}, Case{40, 100, 32, 2, d}, Case{130, 77, 32, 4, d}})
      check_attention(PageFormat::kE4M3, c, 0.5f, true);
  check_attention(PageFormat::kE4M3, {200, 300, 4, 2, 128}, 10.0f, true);  // scores of hundreds
  for (const int64_t d : {64, 128})
    for (const Case& c : {Case{300, 1, 4, 1, d, 24, true}, Case{1000, 333, 9, 3, d, 128, true}, Case{400, 2901, 28, 4, d, 0, true}, Case{77, 4096, 12, 2, d, 1000, false}}) check_attention(PageFormat::kE4M3, c, 0.5f, true);
}

TEST_MAIN()
