#include "check.h"
#include "cpu/nasty.h"

using namespace longview;

namespace {

struct Case {
  int64_t heads = 9, kv_heads = 3, head_dim = 64;
  int64_t prefix = 0;  // tokens in the pages before the queries come
  int64_t tokens = 1;
  float query_scale = 1;
  KvFormat format = KvFormat::kBFloat16;
  uint64_t seed = 1;
};

std::string describe(const nasty::Path& path, const Case& c) {
  return path.name() + (c.format == KvFormat::kFloat32 ? " f32 pages " : " bf16 pages ") + std::to_string(c.heads) + "/" +
         std::to_string(c.kv_heads) + " x " + std::to_string(c.head_dim) + ", " + std::to_string(c.tokens) + " after " +
         std::to_string(c.prefix);
}

// No rotation: what attention does is then told by q, k and v alone.
RopeConfig still() { return {}; }

float stored(float value, KvFormat format) {
  return format == KvFormat::kFloat32 ? value : bf16_to_float(float_to_bf16(value));
}

void check_attention(const nasty::Path& path, const Case& c, const std::vector<int64_t>& rows_to_check = {}) {
  nasty::Random random(c.seed);
  const int64_t total = c.prefix + c.tokens, d = c.head_dim;
  const int64_t pages = (total + kPageTokens - 1) / kPageTokens;
  const auto backend = nasty::backend(path);
  const auto rope = backend->upload_rope(still());
  const KvShape shape{2, c.kv_heads, d, c.format};
  const auto storage = backend->allocate_kv(shape, pages + 3);
  std::vector<int32_t> slots(static_cast<size_t>(pages + 3));
  for (size_t i = 0; i < slots.size(); ++i) slots[i] = static_cast<int32_t>(i);
  for (size_t i = slots.size(); i > 1; --i) std::swap(slots[i - 1], slots[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
  const KvPages view{storage.get(), slots};

  // What an earlier owner of the pages left behind must not be seen: NaN in every element.
  {
    const std::vector<float> nan(static_cast<size_t>(kPageTokens * c.kv_heads * d), std::numeric_limits<float>::quiet_NaN());
    const nasty::Buffer q(*backend, kPageTokens, c.heads * d), k(*backend, kPageTokens, c.kv_heads * d, nan),
        v(*backend, kPageTokens, c.kv_heads * d, nan);
    for (int64_t page = 0; page < pages; ++page)
      backend->rope_and_append_kv(q, k, v, *rope, shape, 1, view, page * kPageTokens);
  }

  const std::vector<float> k = nasty::values(random, total * c.kv_heads * d);
  const std::vector<float> v = nasty::values(random, total * c.kv_heads * d);
  const std::vector<float> q = nasty::values(random, c.tokens * c.heads * d, c.query_scale);
  const int64_t chunk = 1000;  // pages are met in their middle
  for (int64_t begin = 0; begin < total;) {
    const int64_t count = begin < c.prefix ? std::min(chunk, c.prefix - begin) : c.tokens;
    const auto part = [&](const std::vector<float>& all) {
      return std::vector<float>(all.begin() + begin * c.kv_heads * d, all.begin() + (begin + count) * c.kv_heads * d);
    };
    const nasty::Buffer ks(*backend, count, c.kv_heads * d, part(k)), vs(*backend, count, c.kv_heads * d, part(v));
    const nasty::Buffer qs(*backend, count, c.heads * d);
    backend->rope_and_append_kv(qs, ks, vs, *rope, shape, 1, view, begin);
    begin += count;
  }
  const nasty::Buffer queries(*backend, c.tokens, c.heads * d, q), output(*backend, c.tokens, c.heads * d);
  backend->attention(queries, shape, c.heads, 1, view, c.prefix, output);

  // The bf16 products round the scaled queries, which matters where scores are large: the reference may be either.
  const bool bf16 = nasty::has_bf16(path.isa) && path.precision != Precision::kFloat32 && c.format == KvFormat::kBFloat16;
  const float scale = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(d)));
  nasty::Worst worst;
  std::vector<double> weights(static_cast<size_t>(total));
  std::vector<int64_t> rows = rows_to_check;
  if (rows.empty())
    for (int64_t t = 0; t < c.tokens; ++t) rows.push_back(t);
  for (const int64_t t : rows) {
    for (int64_t h = 0; h < c.heads; ++h) {
      const int64_t kv = h / (c.heads / c.kv_heads), seen = c.prefix + t + 1;
      double error[2] = {0, 0}, limit[2] = {1e30, 1e30}, largest_score = 0;
      std::vector<double> expected(static_cast<size_t>(d)), size(static_cast<size_t>(d));
      std::vector<double> other;
      for (int rounding = 0; rounding < (bf16 ? 2 : 1); ++rounding) {
        double maximum = -1e300, sum = 0;
        for (int64_t p = 0; p < seen; ++p) {
          double score = 0;
          for (int64_t i = 0; i < d; ++i) {
            const float scaled = q[static_cast<size_t>((t * c.heads + h) * d + i)] * scale;
            const double query = rounding ? bf16_to_float(float_to_bf16(scaled)) : scaled;
            score += query * stored(k[static_cast<size_t>((p * c.kv_heads + kv) * d + i)], c.format);
          }
          weights[static_cast<size_t>(p)] = score;
          maximum = std::max(maximum, score);
          largest_score = std::max(largest_score, std::fabs(score));
        }
        for (int64_t p = 0; p < seen; ++p) sum += weights[static_cast<size_t>(p)] = std::exp2(weights[static_cast<size_t>(p)] - maximum);
        std::fill(expected.begin(), expected.end(), 0.0);
        std::fill(size.begin(), size.end(), 0.0);
        for (int64_t p = 0; p < seen; ++p)
          for (int64_t i = 0; i < d; ++i) {
            const double product = weights[static_cast<size_t>(p)] / sum * stored(v[static_cast<size_t>((p * c.kv_heads + kv) * d + i)], c.format);
            expected[static_cast<size_t>(i)] += product;
            size[static_cast<size_t>(i)] += std::fabs(product);
          }
        // Errors of scores weigh by the scores' size; weights are rounded to 8 bits by the bf16 products.
        const double relative = (bf16 ? 1.0 / 256 : 1e-6) + 4e-7 * largest_score;
        for (int64_t i = 0; i < d; ++i) {
          const double actual = output.data()[(t * c.heads + h) * d + i];
          const double off = std::fabs(actual - expected[static_cast<size_t>(i)]) / (relative * size[static_cast<size_t>(i)] + 1e-30);
          error[rounding] = std::isfinite(actual) ? std::max(error[rounding], off) : 1e30;
        }
        limit[rounding] = error[rounding];
      }
      worst.add(t, std::min(limit[0], limit[1]), 0, 1);
    }
  }
  worst.check(describe(path, c));
}

std::vector<nasty::Path> attention_paths() {
  std::vector<nasty::Path> some;
  for (const nasty::Path& path : nasty::paths())
    if (path.precision == Precision::kFloat32 || path.precision == Precision::kAuto) some.push_back(path);
  return some;
}

}  // namespace

TEST("attention: head sizes and groups, on every code path and page format") {
  uint64_t seed = 1;
  for (const nasty::Path& path : attention_paths())
    for (const KvFormat format : {KvFormat::kBFloat16, KvFormat::kFloat32})
      for (const int64_t head_dim : {32, 64, 80, 96, 128, 34, 256})
        for (const int64_t group : {1, 3, 4, 7})
          check_attention(path, {.heads = 2 * group, .kv_heads = 2, .head_dim = head_dim, .prefix = 50, .tokens = group == 3 ? 129 : 40, .format = format, .seed = ++seed});
}

TEST("attention: one token and few, at the borders of pages") {
  uint64_t seed = 1000;
  for (const nasty::Path& path : attention_paths())
    for (const KvFormat format : {KvFormat::kBFloat16, KvFormat::kFloat32})
      for (const int64_t prefix : {0, 1, 31, 126, 127, 128, 129, 1500})
        for (const int64_t tokens : {1, 2, 5, 33}) check_attention(path, {.prefix = prefix, .tokens = tokens, .format = format, .seed = ++seed});
}

TEST("attention: large scores") {
  uint64_t seed = 2000;
  for (const nasty::Path& path : attention_paths())
    for (const float scale : {30.0f, 1000.0f})
      for (const int64_t tokens : {1, 130}) check_attention(path, {.prefix = 300, .tokens = tokens, .query_scale = scale, .seed = ++seed});
}

TEST("attention: chunks of many pages") {
  uint64_t seed = 3000;
  for (const nasty::Path& path : attention_paths())
    check_attention(path, {.heads = 3, .kv_heads = 1, .prefix = 700, .tokens = 600, .seed = ++seed}, {0, 1, 63, 64, 199, 211, 400, 599});
}

TEST("attention: past 65,536 tokens, pages in any order") {
  uint64_t seed = 4000;
  for (const nasty::Path& path : attention_paths())
    for (const int64_t tokens : {1, 70})
      check_attention(path, {.heads = 3, .kv_heads = 1, .prefix = 66'000, .tokens = tokens, .seed = ++seed}, {0, tokens - 1});
}

TEST_MAIN()
