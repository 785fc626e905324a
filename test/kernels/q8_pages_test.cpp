// q8 pages on the GPU: codes and scales as the CPU makes them, copies in bf16, means, and attention that reads the codes.
#include "cpu/q8.h"
#include "kernels/narrow_pages.h"

using namespace narrow_pages;

namespace {

void check_append(const Append& append) {
  const Appended a(append, PageFormat::kQ8);
  int64_t wrong_values = 0, wrong_keys = 0;
  for (int64_t t = 0; t < append.tokens; ++t)
    for (int64_t g = 0; g < a.kKvHeads; ++g)
      for (int64_t first = 0; first < append.d; first += 32) {
        const Page p = a.page_of(t);
        const int64_t token = a.token_of(t);
        const uint8_t* values = p.block(a.kLayer, g, 1);
        float x[32];
        int8_t codes[32];
        for (int64_t i = 0; i < 32; ++i) x[i] = static_cast<float>(a.wanted(1, t, g, first + i));
        wrong_values += cpu::quantize_q8(x, 32, codes) != load<uint16_t>(values + p.scale_offset(token, first));
        for (int64_t i = 0; i < 32; ++i) wrong_values += codes[i] != static_cast<int8_t>(values[p.offset(1, token, first + i)]);

        // Keys within half a step, as in test/native/cpu/q8_test, and what float32 leaves of a rotation.
        double largest = 0;
        for (int64_t i = first; i < first + 32; ++i) largest = std::max(largest, std::isnan(a.wanted(0, t, g, i)) ? INFINITY : std::fabs(a.wanted(0, t, g, i)));
        if (largest > 3e38) {  // beyond float32 or near it: not a number, or large
          wrong_keys += std::isinf(largest) && !std::isnan(p.value(a.kLayer, g, 0, token, first));
          continue;
        }
        const double bound = largest / 127 * 0.5 * (1 + 1.0 / 128) + largest * 1e-6 + 64 * 0x1p-133;
        for (int64_t i = first; i < first + 32; ++i) wrong_keys += !(std::fabs(static_cast<double>(p.value(a.kLayer, g, 0, token, i)) - a.wanted(0, t, g, i)) <= bound);
      }
  CHECK(wrong_values == 0);
  CHECK(wrong_keys == 0);
}

}  // namespace

TEST("codes and scales are those of the CPU, whatever the values; queries are rotated; nothing else is written") {
  for (const Append& c : all_appends()) check_append(c);
}

TEST("copies in bf16 are the values, rounded once, and carry the means") { check_copies(PageFormat::kQ8); }

TEST("a full page's means are those of what it keeps") { check_means(PageFormat::kQ8); }

TEST("few queries over the codes: ragged lengths, groups, splits, positions on the device") { check_few_queries(PageFormat::kQ8); }

TEST("refusals") {
  check_refused_copies(PageFormat::kQ8);
  const kernels::PagedKv kv{nullptr, 2, 64, 0, 0, PageFormat::kBFloat16};
  CHECK(gpu::library().expand_pages({kv, nullptr, 1}, gpu::stream()) == kernels::kUnsupportedType);
}

TEST_MAIN()
