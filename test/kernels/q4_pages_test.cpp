// q4 pages on the GPU: references, codes and scales against double, copies in bf16, means, and attention that reads the codes.
#include "kernels/narrow_pages.h"

using namespace narrow_pages;

namespace {

uint16_t reference_bits(const Appended& a, int64_t page, int64_t g, int is_value, int64_t i) {
  const Page p = a.page_of(page * kPageTokens - a.c.first);
  return load<uint16_t>(p.block(a.kLayer, g, is_value) + p.reference_offset(i));
}

// Counts references that are not those of kernels/api/cache.h: made of the keys that are numbers, taken from the page before bit for bit, or left.
int64_t wrong_references(const Appended& a) {
  const int64_t first = a.c.first, end = first + a.c.tokens, d = a.c.d, first_begun = (first + kPageTokens - 1) / kPageTokens;
  int64_t wrong = 0;
  for (int64_t page = first / kPageTokens; page < a.pages; ++page)
    for (int64_t g = 0; g < a.kKvHeads; ++g) {
      const bool begins = page >= first_begun, own = page == 0 || end - page * kPageTokens >= kernels::kLeastReferenceKeys;
      const int64_t from = !begins || (own && a.c.tokens > 1) ? page : page - 1;  // -1: a first page of one token
      const bool made = a.c.tokens > 1 && from >= first_begun;
      std::vector<double> sum(static_cast<size_t>(d));
      double count = 0, largest = 0;
      for (int64_t t = from * kPageTokens - first; made && t < std::min(from * kPageTokens + kPageTokens, end) - first; ++t) {
        double most = 0;
        for (int64_t i = 0; i < d; ++i) {
          const double x = a.plain_keys[static_cast<size_t>((t * a.kKvHeads + g) * d + i)];
          most = std::max(most, std::isnan(a.wanted(0, t, g, i)) || std::isnan(x) ? INFINITY : std::fabs(x));
        }
        if (!(most < 0x1p120)) continue;
        ++count, largest = std::max(largest, most);
        for (int64_t i = 0; i < d; ++i) sum[static_cast<size_t>(i)] += a.wanted(0, t, g, i);
      }
      for (int64_t i = 0; i < d; ++i) {
        const uint16_t bits = reference_bits(a, page, g, 0, i), before = from < 0 ? uint16_t{0} : a.given[static_cast<size_t>((from * a.kKvHeads + g) * d + i)];
        const double got = bf16_to_float(bits), mean = count > 0 ? sum[static_cast<size_t>(i)] / count : 0;
        wrong += made ? !(std::fabs(got - mean) <= std::fabs(mean) / 256 + largest * 1e-5) : bits != before;
        wrong += reference_bits(a, page, g, 1, i) != 0;
      }
    }
  return wrong;
}

// Counts codes and scales of a token's K or V, less the reference that lies there, that are not the nearest.
int64_t wrong_codes(const Appended& a, int64_t t, int64_t g, int is_value) {
  const Page p = a.page_of(t);
  const int64_t token = a.token_of(t), d = a.c.d;
  const uint8_t* block = p.block(a.kLayer, g, is_value);
  double size = 0;  // of the head
  for (int64_t i = 0; i < d; ++i) size = std::max(size, std::isfinite(a.wanted(is_value, t, g, i)) ? std::fabs(a.wanted(is_value, t, g, i)) : INFINITY);
  int64_t wrong = 0;
  for (int64_t first = 0; first < d; first += 32) {
    const double scale = bf16_to_float(load<uint16_t>(block + p.scale_offset(token, first)));
    if (size > 1e38) {  // no number, or near float32's end
      wrong += size == INFINITY && !std::isnan(scale);
      continue;
    }
    double x[32], most = 0, least = 0;
    for (int64_t i = 0; i < 32; ++i) {
      x[i] = a.wanted(is_value, t, g, first + i) - bf16_to_float(load<uint16_t>(block + p.reference_offset(first + i)));
      most = std::max(most, x[i]), least = std::min(least, x[i]);
    }
    const double largest = std::max(most, -least), slack = size * 1e-5 * (1 - is_value) + largest * 1e-6 + 64 * 0x1p-133;
    wrong += !(std::fabs(8 * std::fabs(scale) - largest) <= largest / 256 + slack);
    wrong += !((scale < 0 ? most : -least) >= largest - slack);  // -8 stands for the largest
    for (int64_t i = 0; i < 32; ++i) {
      const double value = (first + i) % 2 ? block[p.offset(is_value, token, first + i)] >> 4 : block[p.offset(is_value, token, first + i)] & 15, code = value - 8;
      if (scale == 0) wrong += code != 0;
      else if (code == 7) wrong += x[i] / scale < 6.5 - slack / std::fabs(scale);
      else wrong += !(std::fabs(x[i] - code * scale) <= std::fabs(scale) * 0.5 * (1 + 1.0 / 32) + slack);
    }
  }
  return wrong;
}

// Scores of queries as they came out, with keys of the pages or (`exact`) transformed in double, against those without a transform.
double score_error(const Appended& a, bool exact) {
  double difference = 0, norm = 0;
  for (int64_t t = 0; t < a.c.tokens; ++t)
    for (int64_t head = 0; head < a.kHeads; ++head) {
      const int64_t g = head * a.kKvHeads / a.kHeads;
      double got = 0, wanted = 0;
      for (int64_t i = 0; i < a.c.d; ++i) {
        const size_t of_query = static_cast<size_t>((t * a.kHeads + head) * a.c.d + i);
        got += gpu::at(a.queries, of_query) * (exact ? a.wanted(0, t, g, i) : static_cast<double>(a.page_of(t).value(a.kLayer, g, 0, a.token_of(t), i)));
        wanted += a.plain_queries[of_query] * a.plain_keys[static_cast<size_t>((t * a.kKvHeads + g) * a.c.d + i)];
      }
      if (std::isnan(got)) continue;
      difference += (got - wanted) * (got - wanted), norm += wanted * wanted;
    }
  return std::sqrt(difference / norm);
}

void check_append(const Append& append) {
  const Appended a(append, PageFormat::kQ4);
  CHECK(wrong_references(a) == 0);
  int64_t wrong[2] = {};
  for (int64_t t = 0; t < append.tokens; ++t)
    for (int64_t g = 0; g < a.kKvHeads; ++g)
      for (int is_value = 0; is_value < 2; ++is_value) wrong[is_value] += wrong_codes(a, t, g, is_value);
  CHECK(wrong[0] == 0);
  CHECK(wrong[1] == 0);
  if (append.values != Values::kShifted || append.tokens < 100) return;
  const double exact = score_error(a, true), error = score_error(a, false);
  std::printf("  T %3d first %3d heads of %d in %d: scores %.1e, of codes %.1e\n", int(append.tokens), int(append.first), int(append.own), int(append.d), exact, error);
  CHECK(exact <= gpu::kBf16Error);
  CHECK(error <= 0.1);
}

}  // namespace

TEST("references, codes and scales, whatever the values; queries and keys are transformed; nothing else is written") {
  for (Append c : all_appends())
    for (const Values values : {Values::kAdversarial, Values::kShifted}) {
      c.values = values;
      check_append(c);
    }
}

TEST("references of pages that begin: whole, ragged, of few keys, of one token") {
  for (const auto& [own, d, half] : {std::array<int64_t, 3>{64, 64, 32}, {128, 128, 64}, {96, 128, 48}, {256, 256, 32}})
    for (const auto& [tokens, first] : {std::pair<int64_t, int64_t>{256, 0}, {300, 0}, {160, 0}, {159, 0}, {129, 0}, {5, 0}, {2, 0}, {60, 100}, {59, 100}, {29, 100}, {28, 100}, {128, 128}, {31, 256}, {32, 256}, {159, 256}, {2, 128}, {160, 127}, {1, 0}, {1, 128}, {1, 129}, {1, 256}})
      check_append({own, d, half, tokens, first, 0, Values::kShifted});
}

TEST("keys and values of zeros have scales of 0; of faults alone references of 0") {
  for (const Values values : {Values::kZero, Values::kFaulty})
    for (const Append& append : {Append{64, 64, 32, 140, 0, 0, values}, Append{128, 128, 64, 300, 20, 0, values}, Append{256, 256, 32, 40, 128, 0, values}}) {
      check_append(append);
      const Appended a(append, PageFormat::kQ4);
      int64_t wrong = 0;
      for (int64_t page = (append.first + kPageTokens - 1) / kPageTokens; page < a.pages; ++page)
        for (int64_t g = 0; g < a.kKvHeads; ++g)
          for (int64_t i = 0; i < append.d; ++i) wrong += (reference_bits(a, page, g, 0, i) & 0x7fff) != 0 && page * kPageTokens + kernels::kLeastReferenceKeys <= append.first + append.tokens;
      for (int64_t t = 0; t < append.tokens; ++t)
        for (int64_t g = 0; g < a.kKvHeads; ++g)
          for (int64_t i = 0; i < append.d; ++i) wrong += a.page_of(t).value(a.kLayer, g, 1, a.token_of(t), i) != 0;
      CHECK(wrong == 0);
    }
}

TEST("copies in bf16 are the values, rounded once, and carry the means") { check_copies(PageFormat::kQ4); }

TEST("a full page's means are those of what it keeps") { check_means(PageFormat::kQ4); }

TEST("few queries over the codes: ragged lengths, groups, splits, positions on the device") {
  check_few_queries(PageFormat::kQ4);
  for (const int64_t d : {64, 128, 256})
    for (const int64_t group : {1, 3, 4, 7, 8})
      for (const int64_t first : {0, 33, 127, 500}) check_attention(PageFormat::kQ4, {1, first, 2 * group, 2, d}, 0.5f);
}

TEST("a key that is no number reaches the rows that see it alone") {
  for (const int64_t d : {64, 128, 256})
    for (const int64_t heads : {1, 3}) {
      const int64_t tokens = 5, first = 126, fault = 128;
      std::mt19937_64 random(7);
      Pages pages(PageFormat::kQ4, 1, d, 2, random, 1);
      const gpu::Memory<uint16_t> q(gpu::random_bf16(static_cast<size_t>(tokens * heads * d), random)), out(static_cast<size_t>(tokens * heads * d));
      std::vector<std::vector<uint16_t>> got;
      for (const bool faulty : {false, true}) {
        const Page page = pages.at(1);
        std::memset(pages.block(1, 0, 1) + page.scale_offset(fault % kPageTokens, 0), 0, static_cast<size_t>(d / 32 * 2));
        if (faulty) std::memset(pages.block(1, 0, 0) + page.scale_offset(fault % kPageTokens, 0), 0xff, static_cast<size_t>(d / 32 * 2));
        pages.upload();
        kernels::AttentionArgs args{q.get(), out.get(), pages.kv(false), tokens, heads, first, gpu::properties().multiprocessors, nullptr};
        const gpu::Memory<float> workspace = gpu::attention_workspace(args);
        args.workspace = workspace.get();
        GPU(attention(args, gpu::stream()));
        got.push_back(out.read());
      }
      int64_t wrong = 0;
      for (int64_t i = 0; i < tokens * heads * d; ++i) {
        const size_t at = static_cast<size_t>(i);
        wrong += first + i / (heads * d) < fault ? got[0][at] != got[1][at] : !std::isnan(gpu::at(got[1], at)) || std::isnan(gpu::at(got[0], at));
      }
      CHECK(wrong == 0);
    }
}

TEST("refusals") {
  check_refused_copies(PageFormat::kQ4);
  const gpu::Memory<uint16_t> some(8192);
  const gpu::Memory<float> angles(std::vector<float>(128, 0.5f));
  kernels::RopeAppendArgs append{some.get(), some.get(), some.get(), some.get(), angles.get(), angles.get(), {nullptr, 2, 192, 0, 0, PageFormat::kQ4}, 2, 4, 192, 32, 0, 0};
  CHECK(gpu::library().rope_append(append, gpu::stream()) == kernels::kInvalidShape);
  append.kv.head_dim = append.head_dim = 64;
  append.k = some.get() + 1;
  CHECK(gpu::library().rope_append(append, gpu::stream()) == kernels::kInvalidAlignment);
}

TEST_MAIN()
