// q8 pages on the GPU: codes and scales as the CPU makes them, copies in bf16, means, and attention that reads the codes.
#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>

#include "cpu/q8.h"
#include "kernels/gpu.h"

using namespace longview;
using kernels::kPageTokens;
using kernels::PageFormat;

namespace {

// A copy of a q8 page's bytes, read by the rules of kernels/api/cache.h.
struct Page {
  const uint8_t* bytes;
  int64_t layers, kv_heads, d;

  const uint8_t* block(int64_t layer, int64_t head, int is_value) const { return bytes + ((layer * kv_heads + head) * 2 + is_value) * kernels::page_block_bytes(PageFormat::kQ8, d); }
  int8_t code(const uint8_t* block, int64_t token, int64_t i) const { return static_cast<int8_t>(block[token * d + i]); }
  uint16_t scale(const uint8_t* block, int64_t token, int64_t i) const { return load<uint16_t>(block + kPageTokens * d + (token * (d / 32) + i / 32) * 2); }
  float value(const uint8_t* block, int64_t token, int64_t i) const { return static_cast<float>(code(block, token, i)) * bf16_to_float(scale(block, token, i)); }
};

// Values of every size: plain ones, rows of zeros, single outliers, denormals, the ends of float32's range, no numbers.
std::vector<uint16_t> adversarial(int64_t rows, int64_t width, std::mt19937_64& random, bool finite) {
  std::vector<uint16_t> out = gpu::random_bf16(static_cast<size_t>(rows * width), random);
  const float specials[] = {1e30f, -3e38f, 1e-40f, -9.2e-41f, 1e-30f, 65504, INFINITY, NAN};
  for (int64_t row = 0; row < rows; ++row) {
    uint16_t* x = out.data() + row * width;
    const auto kind = random() % 6;
    if (kind == 0) std::fill_n(x, width, static_cast<uint16_t>(row % 2 ? 0x8000 : 0));
    if (kind == 1) x[random() % static_cast<size_t>(width)] = float_to_bf16(specials[random() % (finite ? 6 : 8)]);
    if (kind == 2)
      for (int64_t i = 0; i < width; ++i) x[i] = static_cast<uint16_t>(random() % 0x90 | (random() % 2 << 15));  // denormals and the numbers next to them
  }
  return out;
}

struct Append {
  int64_t own, d, half, tokens, first;
  int32_t adjacent;
};

void check_append(const Append& c) {
  const int64_t heads = 6, kv_heads = 2, layers = 2, layer = 1, pages = (c.first + c.tokens + kPageTokens - 1) / kPageTokens;
  const int64_t page = kernels::page_bytes(PageFormat::kQ8, layers, kv_heads, c.d, true);
  std::mt19937_64 random(static_cast<uint64_t>(c.own * 31 + c.tokens));
  const auto q = gpu::random_bf16(static_cast<size_t>(c.tokens * heads * c.own), random);
  const auto k = adversarial(c.tokens * kv_heads, c.own, random, false), v = adversarial(c.tokens * kv_heads, c.own, random, false);
  std::vector<double> frequencies;
  for (int64_t i = 0; i < c.half; ++i) frequencies.push_back(std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(c.half)));
  const gpu::Memory<double> df(frequencies);
  const gpu::Memory<float> cosine(static_cast<size_t>(c.tokens * c.half)), sine(static_cast<size_t>(c.tokens * c.half));
  const gpu::Memory<uint16_t> dq(q), dk(k), dv(v), padded(static_cast<size_t>(c.tokens * heads * c.d));
  const gpu::Memory<uint8_t> storage(static_cast<size_t>(pages * page));
  std::vector<void*> pointers;
  for (int64_t i = 0; i < pages; ++i) pointers.push_back(storage.get() + (pages - 1 - i) * page);
  const gpu::Memory<void*> table(pointers);
  const gpu::Memory<int64_t> position(std::vector<int64_t>{c.first});
  const int64_t* at = c.tokens == 1 ? position.get() : nullptr;
  GPU(rope_table({df.get(), cosine.get(), sine.get(), c.tokens, c.half, c.first, 1, at}, gpu::stream()));
  uint16_t* to = c.own == c.d ? dq.get() : padded.get();
  GPU(rope_append({dq.get(), to, dk.get(), dv.get(), cosine.get(), sine.get(), {table.get(), kv_heads, c.d, layer, layers, PageFormat::kQ8}, c.tokens, heads, c.own, c.half, c.first, c.adjacent, at}, gpu::stream()));
  const std::vector<uint8_t> bytes = storage.read();

  // Heads, rotated in double by the table that the kernel read.
  const std::vector<float> cosines = cosine.read(), sines = sine.read();
  const auto rotated = [&](const std::vector<uint16_t>& x, int64_t count, int64_t t, int64_t head) {
    std::vector<double> out;
    for (int64_t i = 0; i < c.own; ++i) out.push_back(gpu::at(x, static_cast<size_t>((t * count + head) * c.own + i)));
    for (int64_t i = 0; i < c.half; ++i) {
      const auto a = static_cast<size_t>(c.adjacent ? 2 * i : i), b = static_cast<size_t>(c.adjacent ? 2 * i + 1 : i + c.half);
      const double x0 = out[a], x1 = out[b], cos = gpu::at(cosines, static_cast<size_t>(t * c.half + i)), sin = gpu::at(sines, static_cast<size_t>(t * c.half + i));
      out[a] = x0 * cos - x1 * sin;
      out[b] = x0 * sin + x1 * cos;
    }
    return out;
  };
  std::vector<double> queries;
  for (int64_t t = 0; t < c.tokens; ++t)
    for (int64_t h = 0; h < heads; ++h) {
      std::vector<double> head = rotated(q, heads, t, h);
      for (double& x : head) x *= std::sqrt(static_cast<double>(c.d) / static_cast<double>(c.own));
      head.resize(static_cast<size_t>(c.d), 0);
      queries.insert(queries.end(), head.begin(), head.end());
    }
  CHECK(gpu::relative_error(c.own == c.d ? dq.read() : padded.read(), queries) <= gpu::kBf16Error);

  int64_t touched = 0, wrong_values = 0, wrong_keys = 0;
  for (int64_t t = 0; t < c.tokens; ++t)
    for (int64_t g = 0; g < kv_heads; ++g) {
      const int64_t token = (c.first + t) % kPageTokens;
      const Page p{bytes.data() + (pages - 1 - (c.first + t) / kPageTokens) * page, layers, kv_heads, c.d};
      const uint8_t *keys = p.block(layer, g, 0), *values = p.block(layer, g, 1);
      const std::vector<double> key = rotated(k, kv_heads, t, g);
      for (int64_t first = 0; first < c.d; first += 32) {
        float x[32] = {};
        int8_t codes[32];
        for (int64_t i = first; i < std::min(first + 32, c.own); ++i) x[i - first] = bf16_to_float(v[static_cast<size_t>((t * kv_heads + g) * c.own + i)]);
        const uint16_t scale = cpu::quantize_q8(x, 32, codes);
        wrong_values += scale != p.scale(values, token, first);
        for (int64_t i = 0; i < 32; ++i) wrong_values += codes[i] != p.code(values, token, first + i);

        // Keys within half a step, as in test/native/cpu/q8_test, and what float32 leaves of a rotation.
        double largest = 0;
        for (int64_t i = first; i < std::min(first + 32, c.own); ++i) largest = std::max(largest, std::isnan(key[static_cast<size_t>(i)]) ? INFINITY : std::fabs(key[static_cast<size_t>(i)]));
        if (largest > 3e38) {  // beyond float32 or near it: not a number, or large
          wrong_keys += std::isinf(largest) && !std::isnan(p.value(keys, token, first));
          continue;
        }
        const double bound = largest / 127 * 0.5 * (1 + 1.0 / 128) + largest * 1e-6 + 64 * 0x1p-133;
        for (int64_t i = first; i < first + 32; ++i) {
          const double wanted = i < c.own ? key[static_cast<size_t>(i)] : 0;
          wrong_keys += !(std::fabs(static_cast<double>(p.value(keys, token, i)) - wanted) <= bound);
        }
      }
      touched += 2 * (c.d + c.d / 32 * 2);
    }
  CHECK(wrong_values == 0);
  CHECK(wrong_keys == 0);

  // Nothing else was written, but the means of pages that became full.
  const int64_t full = (c.first + c.tokens) / kPageTokens - c.first / kPageTokens, means = full * kv_heads * 2 * c.d * 2;
  int64_t written = 0, other_layer = 0;
  for (int64_t i = 0; i < pages * page; ++i) written += bytes[static_cast<size_t>(i)] != 0xff;
  for (int64_t i = 0; i < pages; ++i)
    for (int64_t b = 0; b < kv_heads * 2 * kernels::page_block_bytes(PageFormat::kQ8, c.d); ++b) other_layer += bytes[static_cast<size_t>(i * page + b)] != 0xff;
  CHECK(written <= touched + means);
  CHECK(other_layer == 0);
}

// Random codes and scales of one layer among others, pages in random order.
struct Pages {
  int64_t kv_heads, d, count, page, layers = 2, layer = 1;
  std::vector<uint8_t> bytes;
  std::vector<int64_t> slots;
  std::optional<gpu::Memory<uint8_t>> device;
  std::optional<gpu::Memory<void*>> table;

  Pages(int64_t heads_of_kv, int64_t head_dim, int64_t pages, std::mt19937_64& random, float scale) : kv_heads(heads_of_kv), d(head_dim), count(pages) {
    page = kernels::page_bytes(PageFormat::kQ8, layers, kv_heads, d, true);
    bytes.assign(static_cast<size_t>(count * page), 0x7f);  // scales of 3e38
    slots.resize(static_cast<size_t>(count));
    std::iota(slots.begin(), slots.end(), 0);
    std::shuffle(slots.begin(), slots.end(), random);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t g = 0; g < kv_heads; ++g)
        for (int is_value = 0; is_value < 2; ++is_value) {
          auto* block = const_cast<uint8_t*>(at(i).block(layer, g, is_value));
          for (int64_t x = 0; x < kPageTokens * d; ++x) block[x] = static_cast<uint8_t>(static_cast<int64_t>(random() % 255) - 127);
          for (int64_t x = 0; x < kPageTokens * d / 32; ++x) {
            const uint16_t bits = float_to_bf16(std::fabs(normal(random)) * scale / 64);
            std::memcpy(block + kPageTokens * d + 2 * x, &bits, 2);
          }
        }
      for (int64_t x = kernels::page_mean_bytes(PageFormat::kQ8, layers, kv_heads, d, layer, 0); x < page; ++x) bytes[static_cast<size_t>(slots[static_cast<size_t>(i)] * page + x)] = static_cast<uint8_t>(random());
    }
  }
  Page at(int64_t i) const { return {bytes.data() + slots[static_cast<size_t>(i)] * page, layers, kv_heads, d}; }
  void upload() {
    device.emplace(bytes);
    std::vector<void*> pointers;
    for (const int64_t slot : slots) pointers.push_back(device->get() + slot * page);
    table.emplace(pointers);
  }
  kernels::PagedKv kv(bool means) const { return {table->get(), kv_heads, d, layer, means ? layers : 0, PageFormat::kQ8}; }
  // As attention reads it: rounded to bf16.
  double value(int64_t token, int64_t head, int is_value, int64_t i) const {
    const Page p = at(token / kPageTokens);
    return bf16_to_float(float_to_bf16(p.value(p.block(layer, head, is_value), token % kPageTokens, i)));
  }
};

struct Case {
  int64_t tokens, first, heads, kv_heads, d;
};

void check_attention(const Case& c, float spread) {
  std::mt19937_64 random(static_cast<uint64_t>(c.tokens * 7919 + c.first * 31 + c.heads * 7 + c.d));
  const int64_t length = c.first + c.tokens;
  Pages pages(c.kv_heads, c.d, (length + kPageTokens - 1) / kPageTokens, random, 1.0f);
  // What is behind the last token is no number: an earlier context may have left it.
  const Page last = pages.at(pages.count - 1);
  for (int64_t t = (length - 1) % kPageTokens + 1; t < kPageTokens; ++t)
    for (int64_t g = 0; g < c.kv_heads; ++g)
      for (int is_value = 0; is_value < 2; ++is_value) std::memset(const_cast<uint8_t*>(last.block(pages.layer, g, is_value)) + kPageTokens * c.d + t * (c.d / 32) * 2, 0xff, static_cast<size_t>(c.d / 32 * 2));
  pages.upload();
  const auto q = gpu::random_bf16(static_cast<size_t>(c.tokens * c.heads * c.d), random, spread);
  const gpu::Memory<uint16_t> dq(q), out(q.size());
  kernels::AttentionArgs args{dq.get(), out.get(), pages.kv(false), c.tokens, c.heads, c.first, gpu::properties().multiprocessors, nullptr};
  const gpu::Memory<float> workspace(static_cast<size_t>(gpu::library().attention_workspace_floats(args) + 1));
  args.workspace = workspace.get();
  GPU(attention(args, gpu::stream()));
  const std::vector<uint16_t> got = out.read();
  if (c.tokens == 1) {  // as recorded for another position of as many parts
    const gpu::Memory<int64_t> position(std::vector<int64_t>{c.first});
    const gpu::Memory<uint16_t> again(q.size());
    kernels::AttentionArgs recorded = args;
    recorded.position = position.get();
    recorded.out = again.get();
    recorded.first_position = std::max<int64_t>(0, c.first - 1);
    if (gpu::library().attention_workspace_floats(recorded) == gpu::library().attention_workspace_floats(args)) {
      GPU(attention(recorded, gpu::stream()));
      CHECK(again.read() == got);
    }
  }
  std::vector<double> wanted, scores;
  std::vector<uint16_t> rows;
  const int64_t step = std::max<int64_t>(1, c.tokens * c.heads * length / 400000);
  for (int64_t row = 0; row < c.tokens * c.heads; row += step) {
    const int64_t t = row / c.heads, h = row % c.heads, g = h / (c.heads / c.kv_heads), seen = c.first + t + 1;
    scores.assign(static_cast<size_t>(seen), 0);
    double highest = -INFINITY, sum = 0;
    for (int64_t s = 0; s < seen; ++s) {
      double dot = 0;
      for (int64_t i = 0; i < c.d; ++i) dot += gpu::at(q, static_cast<size_t>(row * c.d + i)) * pages.value(s, g, 0, i);
      highest = std::max(highest, scores[static_cast<size_t>(s)] = dot / std::sqrt(static_cast<double>(c.d)));
    }
    for (double& score : scores) sum += score = std::exp(score - highest);
    const size_t begin = wanted.size();
    wanted.resize(begin + static_cast<size_t>(c.d), 0);
    for (int64_t s = 0; s < seen; ++s)
      for (int64_t i = 0; i < c.d; ++i) wanted[begin + static_cast<size_t>(i)] += scores[static_cast<size_t>(s)] / sum * pages.value(s, g, 1, i);
    rows.insert(rows.end(), got.begin() + row * c.d, got.begin() + (row + 1) * c.d);
  }
  const double error = gpu::relative_error(rows, wanted);
  std::printf("  T %3d first %6d heads %d/%d d %3d: %.1e\n", int(c.tokens), int(c.first), int(c.heads), int(c.kv_heads), int(c.d), error);
  CHECK(error <= 5e-3);  // weights and results are bf16
}

}  // namespace

TEST("codes and scales are those of the CPU, whatever the values; queries are rotated; nothing else is written") {
  for (const int32_t adjacent : {0, 1})
    for (const Append& c : {Append{128, 128, 64, 203, 77, adjacent}, Append{64, 64, 32, 300, 100, adjacent}, Append{128, 128, 32, 9, 125, adjacent}, Append{96, 128, 48, 50, 0, adjacent},
                            Append{48, 64, 12, 131, 255, adjacent}, Append{80, 128, 40, 3, 126, adjacent}, Append{128, 128, 64, 1, 127, adjacent}, Append{64, 64, 32, 1, 300, adjacent}})
      check_append(c);
}

TEST("copies in bf16 are the values, rounded once, and carry the means") {
  std::mt19937_64 random(3);
  for (const int64_t d : {64, 128})
    for (const float scale : {1.0f, 1e30f, 1e-37f, 0.0f}) {
      Pages pages(3, d, 5, random, scale);
      auto* nan = const_cast<uint8_t*>(pages.at(2).block(pages.layer, 1, 1)) + kPageTokens * d;
      nan[0] = nan[1] = 0xff;
      pages.upload();
      const int64_t page = kernels::page_elements(1, 3, d, true);
      const gpu::Memory<uint16_t> to(static_cast<size_t>(5 * page));
      std::vector<void*> pointers;
      for (int64_t i = 0; i < 5; ++i) pointers.push_back(to.get() + i * page);
      const gpu::Memory<void*> table(pointers);
      GPU(expand_pages({pages.kv(true), table.get(), 5}, gpu::stream()));
      const std::vector<uint16_t> got = to.read();
      int64_t wrong = 0;
      for (int64_t i = 0; i < 5; ++i)
        for (int64_t g = 0; g < 3; ++g)
          for (int is_value = 0; is_value < 2; ++is_value) {
            const Page from = pages.at(i);
            const uint8_t* block = from.block(pages.layer, g, is_value);
            for (int64_t t = 0; t < kPageTokens; ++t)
              for (int64_t x = 0; x < d; ++x) {
                const uint16_t bits = got[static_cast<size_t>(i * page + (g * 2 + is_value) * kPageTokens * d + kernels::page_offset(t, x))];
                const float wanted = from.value(block, t, x);
                wrong += std::isnan(wanted) ? !std::isnan(bf16_to_float(bits)) : bf16_to_float(bits) != bf16_to_float(float_to_bf16(wanted));
              }
            const int64_t mean = kernels::page_mean_offset(1, 3, d, 0, g) + is_value * d;
            wrong += std::memcmp(got.data() + i * page + mean, from.bytes + kernels::page_mean_bytes(PageFormat::kQ8, pages.layers, 3, d, pages.layer, g) + is_value * d * 2, static_cast<size_t>(d * 2)) != 0;
          }
      CHECK(wrong == 0);
    }
}

TEST("a full page's means are those of what it keeps") {
  std::mt19937_64 random(5);
  for (const int64_t d : {64, 128}) {
    const int64_t heads = 4, kv_heads = 2, half = d / 2, layers = 2, layer = 1, page = kernels::page_bytes(PageFormat::kQ8, layers, kv_heads, d, true);
    const gpu::Memory<uint8_t> storage(static_cast<size_t>(2 * page));
    const gpu::Memory<void*> table(std::vector<void*>{storage.get(), storage.get() + page});
    const gpu::Memory<float> cosine(gpu::random_float(static_cast<size_t>(200 * half), random)), sine(gpu::random_float(static_cast<size_t>(200 * half), random));
    int64_t first = 0;
    for (const int64_t tokens : {100, 27, 1, 60}) {
      const gpu::Memory<uint16_t> q(gpu::random_bf16(static_cast<size_t>(tokens * heads * d), random)), k(gpu::random_bf16(static_cast<size_t>(tokens * kv_heads * d), random)), v(gpu::random_bf16(static_cast<size_t>(tokens * kv_heads * d), random));
      GPU(rope_append({q.get(), q.get(), k.get(), v.get(), cosine.get(), sine.get(), {table.get(), kv_heads, d, layer, layers, PageFormat::kQ8}, tokens, heads, d, half, first, 0}, gpu::stream()));
      first += tokens;
    }
    const std::vector<uint8_t> bytes = storage.read();
    const Page full{bytes.data(), layers, kv_heads, d};
    std::vector<uint16_t> got;
    std::vector<double> wanted;
    for (int64_t g = 0; g < kv_heads; ++g)
      for (int is_value = 0; is_value < 2; ++is_value)
        for (int64_t i = 0; i < d; ++i) {
          double sum = 0;
          for (int64_t t = 0; t < kPageTokens; ++t) sum += full.value(full.block(layer, g, is_value), t, i);
          wanted.push_back(sum / kPageTokens);
          got.push_back(load<uint16_t>(bytes.data() + kernels::page_mean_bytes(PageFormat::kQ8, layers, kv_heads, d, layer, g) + (is_value * d + i) * 2));
        }
    CHECK(gpu::relative_error(got, wanted) <= gpu::kBf16Error);
    const int64_t ragged = page + kernels::page_mean_bytes(PageFormat::kQ8, layers, kv_heads, d, layer, 0);
    CHECK(std::all_of(bytes.begin() + ragged, bytes.end(), [](uint8_t x) { return x == 0xff; }));
  }
}

TEST("few queries over the codes: ragged lengths, groups, splits, positions on the device") {
  for (const int64_t d : {64, 128})
    for (const Case& c : {Case{1, 0, 1, 1, d}, Case{1, 127, 9, 3, d}, Case{1, 128, 8, 8, d}, Case{1, 5000, 32, 8, d}, Case{1, 20011, 9, 3, d}, Case{3, 14, 28, 4, d}, Case{16, 4000, 32, 8, d}, Case{5, 1000, 24, 1, d}, Case{130, 60, 4, 2, d}})
      check_attention(c, 0.5f);
  check_attention({1, 3000, 8, 2, 128}, 20.0f);  // scores of hundreds
}

TEST("refusals") {
  const gpu::Memory<uint16_t> some(4096);
  kernels::PagedKv kv{nullptr, 2, 96, 0, 0, PageFormat::kQ8};
  CHECK(gpu::library().expand_pages({kv, nullptr, 1}, gpu::stream()) == kernels::kInvalidShape);
  kv.head_dim = 64;
  CHECK(gpu::library().expand_pages({kv, nullptr, 0}, gpu::stream()) == kernels::kInvalidShape);
  kv.format = PageFormat::kBFloat16;
  CHECK(gpu::library().expand_pages({kv, nullptr, 1}, gpu::stream()) == kernels::kUnsupportedType);
}

TEST_MAIN()
