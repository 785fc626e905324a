// KV pages of 8 and 4 bits for tests of kernels: what they keep, read by the rules of kernels/api/cache.h, random ones, and the
// checks that do not depend on how codes are made.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>

#include "kernels/e4m3.h"
#include "kernels/gpu.h"

namespace narrow_pages {

using namespace longview;
using kernels::kPageTokens;
using kernels::PageFormat;

// A copy of a page's bytes.
struct Page {
  const uint8_t* bytes;
  PageFormat format;
  int64_t layers, kv_heads, d;

  const uint8_t* block(int64_t layer, int64_t head, int is_value) const { return bytes + ((layer * kv_heads + head) * 2 + is_value) * kernels::page_block_bytes(format, d); }
  int64_t offset(int is_value, int64_t token, int64_t i) const {
    if (format == PageFormat::kQ8) return token * d + i;
    if (format == PageFormat::kQ4) return (token * d + i) / 2;
    return is_value ? kernels::e4m3_value_offset(token, i) : kernels::e4m3_key_offset(d, token, i);
  }
  // Where the scale of a token's dimension lies in the block: a bf16, or the float32 of all.
  int64_t scale_offset(int64_t token, int64_t i) const {
    return kPageTokens * (format == PageFormat::kQ4 ? d / 2 : d) + (format == PageFormat::kE4M3 ? 0 : (token * (d / 32) + i / 32) * 2);
  }
  // Of a q4 block.
  int64_t reference_offset(int64_t i) const { return kernels::page_block_bytes(format, d) - 2 * d + 2 * i; }
  float value(int64_t layer, int64_t head, int is_value, int64_t token, int64_t i) const {
    const uint8_t *at = block(layer, head, is_value), code = at[offset(is_value, token, i)];
    if (format == PageFormat::kE4M3) return static_cast<float>(decoded_e4m3(code) * load<float>(at + scale_offset(token, i)));
    if (format == PageFormat::kQ4) return static_cast<float>((i % 2 ? code >> 4 : code & 15) - 8) * bf16_to_float(load<uint16_t>(at + scale_offset(token, i))) + bf16_to_float(load<uint16_t>(at + reference_offset(i)));
    return static_cast<float>(static_cast<int8_t>(code)) * bf16_to_float(load<uint16_t>(at + scale_offset(token, i)));
  }
};

// Values of every size: plain ones, rows of zeros, single outliers, denormals, the ends of float32's range, no numbers.
inline std::vector<uint16_t> adversarial(int64_t rows, int64_t width, std::mt19937_64& random, bool finite) {
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

// The orthonormal Walsh-Hadamard transform of each `d` values.
inline void transform(std::vector<double>& x, int64_t d) {
  const auto n = static_cast<size_t>(d);
  for (size_t head = 0; head < x.size(); head += n)
    for (size_t step = 1; step < n; step *= 2)
      for (size_t i = head; i < head + n; ++i) {
        if ((i - head) & step) continue;
        const double low = x[i], high = x[i + step];
        x[i] = (low + high) / std::sqrt(2.0);
        x[i + step] = (low - high) / std::sqrt(2.0);
      }
}

enum class Values { kAdversarial, kZero, kShifted, kFaulty };  // K and V: of every size, 0, plain ones that lie around other means than 0 but for some faults, all faults

struct Append {
  int64_t own, d, half, tokens, first;
  int32_t adjacent;
  Values values = Values::kAdversarial;
};

// To pages of codes: heads as wide as the pages and narrower, rotated in part and in whole, in both pairings, one token and many, across pages.
inline std::vector<Append> all_appends() {
  std::vector<Append> out;
  for (const int32_t adjacent : {0, 1})
    out.insert(out.end(), {{128, 128, 64, 203, 77, adjacent}, {64, 64, 32, 300, 100, adjacent}, {128, 128, 32, 9, 125, adjacent}, {96, 128, 48, 50, 0, adjacent},
                           {48, 64, 12, 131, 255, adjacent}, {80, 128, 40, 3, 126, adjacent}, {128, 128, 64, 1, 127, adjacent}, {64, 64, 32, 1, 300, adjacent},
                           {256, 256, 32, 203, 77, adjacent}, {256, 256, 128, 9, 125, adjacent}, {256, 256, 32, 1, 127, adjacent}, {256, 256, 12, 5, 60, adjacent}, {192, 256, 32, 131, 255, adjacent}});
  return out;
}

// What rope_append wrote into pages of `format`, of layer 1 of two, beside what it is to keep of K and V, rotated in double by the table
// that the kernel read. Queries and untouched bytes have been checked. `scale`: that of blocks of the first page before, where a page has one.
struct Appended {
  static constexpr int64_t kHeads = 6, kKvHeads = 2, kLayers = 2, kLayer = 1;
  Append c;
  PageFormat format;
  int64_t pages, page;
  std::vector<uint8_t> bytes;
  std::vector<double> kept[2];  // K and V [tokens, kKvHeads, d]
  // Of q4 pages: references that lie there before [pages, kKvHeads, d]; queries as they came out, and queries and K without the transform.
  std::vector<uint16_t> given, queries;
  std::vector<double> plain_queries, plain_keys;

  Appended(const Append& append, PageFormat kind, float scale = 1) : c(append), format(kind), pages((c.first + c.tokens + kPageTokens - 1) / kPageTokens), page(kernels::page_bytes(format, kLayers, kKvHeads, c.d, true)) {
    std::mt19937_64 random(static_cast<uint64_t>(c.own * 31 + c.tokens));
    const auto q = gpu::random_bf16(static_cast<size_t>(c.tokens * kHeads * c.own), random);
    auto k = adversarial(c.tokens * kKvHeads, c.own, random, false), v = adversarial(c.tokens * kKvHeads, c.own, random, false);
    if (c.values == Values::kZero) std::fill(k.begin(), k.end(), uint16_t{0}), std::fill(v.begin(), v.end(), uint16_t{0});
    if (c.values == Values::kFaulty) std::fill(v.begin(), v.end(), float_to_bf16(INFINITY));
    if (c.values == Values::kShifted) {
      const std::vector<float> means = gpu::random_float(static_cast<size_t>(kKvHeads * c.own), random, 3);
      k = gpu::random_bf16(k.size(), random), v = gpu::random_bf16(v.size(), random);
      for (size_t i = 0; i < k.size(); ++i) k[i] = float_to_bf16(bf16_to_float(k[i]) + means[i % means.size()]);
      for (int64_t t = 3; t < c.tokens; t += 7) (t % 2 ? k : v)[static_cast<size_t>(t * kKvHeads * c.own) + random() % means.size()] = float_to_bf16(t % 3 ? NAN : -INFINITY);
    }
    std::vector<double> frequencies;
    for (int64_t i = 0; i < c.half; ++i) frequencies.push_back(std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(c.half)));
    const gpu::Memory<double> df(frequencies);
    const gpu::Memory<float> cosine(static_cast<size_t>(c.tokens * c.half)), sine(static_cast<size_t>(c.tokens * c.half));
    const gpu::Memory<uint16_t> dq(q), dk(k), dv(v), padded(static_cast<size_t>(c.tokens * kHeads * c.d));
    std::vector<uint8_t> before(static_cast<size_t>(pages * page), 0xff);
    if (format == PageFormat::kE4M3)
      for (int64_t g = 0; g < 2 * kKvHeads; ++g) std::memcpy(before.data() + (pages - 1 - c.first / kPageTokens) * page + (kLayer * kKvHeads * 2 + g) * kernels::page_block_bytes(format, c.d) + kPageTokens * c.d, &scale, 4);
    given = gpu::random_bf16(static_cast<size_t>(pages * kKvHeads * c.d), random);
    for (int64_t i = 0; i * kPageTokens < c.first && format == PageFormat::kQ4; ++i)
      for (int64_t g = 0; g < kKvHeads; ++g)
        for (int is_value = 0; is_value < 2; ++is_value) {
          uint8_t* block = before.data() + (pages - 1 - i) * page + ((kLayer * kKvHeads + g) * 2 + is_value + 1) * kernels::page_block_bytes(format, c.d) - 2 * c.d;
          if (is_value) std::memset(block, 0, static_cast<size_t>(2 * c.d));
          else std::memcpy(block, given.data() + (i * kKvHeads + g) * c.d, static_cast<size_t>(2 * c.d));
        }
    const gpu::Memory<uint8_t> storage(before);
    std::vector<void*> pointers;
    for (int64_t i = 0; i < pages; ++i) pointers.push_back(storage.get() + (pages - 1 - i) * page);
    const gpu::Memory<void*> table(pointers);
    const gpu::Memory<int64_t> position(std::vector<int64_t>{c.first});
    const int64_t* at = c.tokens == 1 ? position.get() : nullptr;
    GPU(rope_table({df.get(), cosine.get(), sine.get(), c.tokens, c.half, c.first, 1, at}, gpu::stream()));
    uint16_t* to = c.own == c.d ? dq.get() : padded.get();
    GPU(rope_append({dq.get(), to, dk.get(), dv.get(), cosine.get(), sine.get(), {table.get(), kKvHeads, c.d, kLayer, kLayers, format}, c.tokens, kHeads, c.own, c.half, c.first, c.adjacent, at}, gpu::stream()));
    bytes = storage.read();
    const std::vector<float> cosines = cosine.read(), sines = sine.read();
    const auto rotated = [&](const std::vector<uint16_t>& x, int64_t count, bool positioned, double grow) {
      std::vector<double> out;
      for (int64_t t = 0; t < c.tokens; ++t)
        for (int64_t head = 0; head < count; ++head) {
          const size_t begin = out.size();
          for (int64_t i = 0; i < c.own; ++i) out.push_back(gpu::at(x, static_cast<size_t>((t * count + head) * c.own + i)) * grow);
          for (int64_t i = 0; positioned && i < c.half; ++i) {
            const size_t a = begin + static_cast<size_t>(c.adjacent ? 2 * i : i), b = begin + static_cast<size_t>(c.adjacent ? 2 * i + 1 : i + c.half);
            const double x0 = out[a], x1 = out[b], cos = gpu::at(cosines, static_cast<size_t>(t * c.half + i)), sin = gpu::at(sines, static_cast<size_t>(t * c.half + i));
            out[a] = x0 * cos - x1 * sin;
            out[b] = x0 * sin + x1 * cos;
          }
          out.resize(begin + static_cast<size_t>(c.d), 0);
        }
      return out;
    };
    kept[0] = rotated(k, kKvHeads, true, 1);
    kept[1] = rotated(v, kKvHeads, false, 1);
    plain_keys = kept[0];
    if (format == PageFormat::kQ4) transform(kept[0], c.d);
    // In the place of a V that is no number, or near the end of bf16's range, lie zeros behind a K that is none.
    for (size_t head = 0; head < kept[1].size(); head += static_cast<size_t>(c.d)) {
      const auto begin = kept[1].begin() + static_cast<std::ptrdiff_t>(head);
      if (std::all_of(begin, begin + c.d, [](double x) { return std::fabs(x) < 0x1p120; })) continue;
      std::fill_n(begin, c.d, 0.0);
      std::fill_n(kept[0].begin() + static_cast<std::ptrdiff_t>(head), c.d, std::numeric_limits<double>::quiet_NaN());
    }
    queries = c.own == c.d ? dq.read() : padded.read();
    plain_queries = rotated(q, kHeads, true, std::sqrt(static_cast<double>(c.d) / static_cast<double>(c.own)));
    std::vector<double> wanted_queries = plain_queries;
    if (format == PageFormat::kQ4) transform(wanted_queries, c.d);
    CHECK(gpu::relative_error(queries, wanted_queries) <= gpu::kBf16Error);

    // Nothing else was written, but the means of pages that became full.
    const int64_t full = (c.first + c.tokens) / kPageTokens - c.first / kPageTokens, means = full * kKvHeads * 2 * c.d * 2;
    const int64_t scales = format == PageFormat::kE4M3 ? pages * 4 : c.tokens * (c.d / 32) * 2, begun = pages - (c.first + kPageTokens - 1) / kPageTokens;
    const int64_t touched = 2 * kKvHeads * (format == PageFormat::kQ4 ? c.tokens * c.d / 2 + scales + begun * c.d * 2 : c.tokens * c.d + scales);
    int64_t written = 0, other_layer = 0;
    for (int64_t i = 0; i < pages * page; ++i) written += bytes[static_cast<size_t>(i)] != before[static_cast<size_t>(i)];
    for (int64_t i = 0; i < pages; ++i)
      for (int64_t b = 0; b < kKvHeads * 2 * kernels::page_block_bytes(format, c.d); ++b) other_layer += bytes[static_cast<size_t>(i * page + b)] != 0xff;
    CHECK(written <= touched + means);
    CHECK(other_layer == 0);
  }

  Page page_of(int64_t t) const { return {bytes.data() + (pages - 1 - (c.first + t) / kPageTokens) * page, format, kLayers, kKvHeads, c.d}; }
  int64_t token_of(int64_t t) const { return (c.first + t) % kPageTokens; }
  double wanted(int is_value, int64_t t, int64_t g, int64_t i) const { return kept[is_value][static_cast<size_t>((t * kKvHeads + g) * c.d + i)]; }
};

// Random codes and scales of one layer among others, pages in random order.
struct Pages {
  PageFormat format;
  int64_t kv_heads, d, count, page, layers = 2, layer = 1;
  std::vector<uint8_t> bytes;
  std::vector<int64_t> slots;
  std::optional<gpu::Memory<uint8_t>> device;
  std::optional<gpu::Memory<void*>> table;

  Pages(PageFormat kind, int64_t heads_of_kv, int64_t head_dim, int64_t pages, std::mt19937_64& random, float scale) : format(kind), kv_heads(heads_of_kv), d(head_dim), count(pages) {
    page = kernels::page_bytes(format, layers, kv_heads, d, true);
    bytes.assign(static_cast<size_t>(count * page), 0x7f);  // scales of 3e38
    slots.resize(static_cast<size_t>(count));
    std::iota(slots.begin(), slots.end(), 0);
    std::shuffle(slots.begin(), slots.end(), random);
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t g = 0; g < kv_heads; ++g)
        for (int is_value = 0; is_value < 2; ++is_value) fill(block(i, g, is_value), is_value, random, scale);
      for (int64_t x = kernels::page_mean_bytes(format, layers, kv_heads, d, layer, 0); x < page; ++x) bytes[static_cast<size_t>(slots[static_cast<size_t>(i)] * page + x)] = static_cast<uint8_t>(random());
    }
  }
  Page at(int64_t i) const { return {bytes.data() + slots[static_cast<size_t>(i)] * page, format, layers, kv_heads, d}; }
  uint8_t* block(int64_t i, int64_t head, int is_value) { return const_cast<uint8_t*>(at(i).block(layer, head, is_value)); }
  // What is behind `length` tokens is no number, or the largest code: an earlier context may have left it.
  void spoil_behind(int64_t length, uint8_t code = 0xff) {
    const Page last = at(count - 1);
    for (int64_t t = (length - 1) % kPageTokens + 1; t < kPageTokens; ++t)
      for (int64_t g = 0; g < kv_heads; ++g)
        for (int is_value = 0; is_value < 2; ++is_value) {
          if (format != PageFormat::kE4M3) std::memset(block(count - 1, g, is_value) + last.scale_offset(t, 0), 0xff, static_cast<size_t>(d / 32 * 2));
          for (int64_t i = 0; i < d && format == PageFormat::kE4M3; ++i) block(count - 1, g, is_value)[last.offset(is_value, t, i)] = code;
        }
  }
  void upload() {
    device.emplace(bytes);
    std::vector<void*> pointers;
    for (const int64_t slot : slots) pointers.push_back(device->get() + slot * page);
    table.emplace(pointers);
  }
  kernels::PagedKv kv(bool means) const { return {table->get(), kv_heads, d, layer, means ? layers : 0, format}; }
  double value(int64_t token, int64_t head, int is_value, int64_t i) const { return at(token / kPageTokens).value(layer, head, is_value, token % kPageTokens, i); }

 private:
  static void store(uint8_t* to, uint16_t bits) { std::memcpy(to, &bits, 2); }
  void fill(uint8_t* to, int is_value, std::mt19937_64& random, float scale) const {
    if (format == PageFormat::kE4M3) {  // up to 4 of a scale
      for (int64_t x = 0; x < kPageTokens * d; ++x) to[x] = static_cast<uint8_t>(random() % 0x49 | random() % 2 << 7);
      const float power = scale == 0 ? 1 : std::exp2(std::round(std::log2(scale)) + static_cast<float>(random() % 5) - 2);
      std::memcpy(to + kPageTokens * d, &power, 4);
      return;
    }
    std::normal_distribution<float> normal;
    if (format == PageFormat::kQ4) {
      const Page page_of{nullptr, format, layers, kv_heads, d};
      for (int64_t x = 0; x < kPageTokens * d / 2; ++x) to[x] = static_cast<uint8_t>(random());
      for (int64_t x = 0; x < kPageTokens * d / 32; ++x) store(to + page_of.scale_offset(0, 0) + 2 * x, float_to_bf16(normal(random) * scale / 4));
      for (int64_t i = 0; i < d; ++i) store(to + page_of.reference_offset(i), is_value ? uint16_t{0} : float_to_bf16(normal(random) * scale));
      return;
    }
    for (int64_t x = 0; x < kPageTokens * d; ++x) to[x] = static_cast<uint8_t>(static_cast<int64_t>(random() % 255) - 127);
    for (int64_t x = 0; x < kPageTokens * d / 32; ++x) {
      const uint16_t bits = float_to_bf16(std::fabs(normal(random)) * scale / 64);
      std::memcpy(to + kPageTokens * d + 2 * x, &bits, 2);
    }
  }
};

inline void check_copies(PageFormat format) {
  std::mt19937_64 random(3);
  for (const int64_t d : {64, 128, 256})
    for (const float scale : {1.0f, 1e28f, 1e-29f, 0.0f}) {
      Pages pages(format, 3, d, 5, random, scale);
      auto* nan = pages.block(2, 1, 1);
      if (format == PageFormat::kE4M3) nan[77] = 0x7f;
      else std::memset(nan + pages.at(2).scale_offset(0, 0), 0xff, 2);
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
            for (int64_t t = 0; t < kPageTokens; ++t)
              for (int64_t x = 0; x < d; ++x) {
                const uint16_t bits = got[static_cast<size_t>(i * page + (g * 2 + is_value) * kPageTokens * d + kernels::page_offset(t, x))];
                const float wanted = from.value(pages.layer, g, is_value, t, x);
                wrong += std::isnan(wanted) ? !std::isnan(bf16_to_float(bits)) : bf16_to_float(bits) != bf16_to_float(float_to_bf16(wanted));
              }
            const int64_t mean = kernels::page_mean_offset(1, 3, d, 0, g) + is_value * d;
            wrong += std::memcmp(got.data() + i * page + mean, from.bytes + kernels::page_mean_bytes(format, pages.layers, 3, d, pages.layer, g) + is_value * d * 2, static_cast<size_t>(d * 2)) != 0;
          }
      CHECK(wrong == 0);
    }
}

inline void check_means(PageFormat format) {
  std::mt19937_64 random(5);
  for (const int64_t d : {64, 128, 256}) {
    const int64_t heads = 4, kv_heads = 2, half = d / 2, layers = 2, layer = 1, page = kernels::page_bytes(format, layers, kv_heads, d, true);
    const gpu::Memory<uint8_t> storage(static_cast<size_t>(2 * page));
    const gpu::Memory<void*> table(std::vector<void*>{storage.get(), storage.get() + page});
    const gpu::Memory<float> cosine(gpu::random_float(static_cast<size_t>(200 * half), random)), sine(gpu::random_float(static_cast<size_t>(200 * half), random));
    int64_t first = 0;
    for (const int64_t tokens : {100, 27, 1, 60}) {
      const gpu::Memory<uint16_t> q(gpu::random_bf16(static_cast<size_t>(tokens * heads * d), random)), k(gpu::random_bf16(static_cast<size_t>(tokens * kv_heads * d), random)), v(gpu::random_bf16(static_cast<size_t>(tokens * kv_heads * d), random));
      GPU(rope_append({q.get(), q.get(), k.get(), v.get(), cosine.get(), sine.get(), {table.get(), kv_heads, d, layer, layers, format}, tokens, heads, d, half, first, 0}, gpu::stream()));
      first += tokens;
    }
    const std::vector<uint8_t> bytes = storage.read();
    const Page full{bytes.data(), format, layers, kv_heads, d};
    std::vector<uint16_t> got;
    std::vector<double> wanted;
    for (int64_t g = 0; g < kv_heads; ++g)
      for (int is_value = 0; is_value < 2; ++is_value)
        for (int64_t i = 0; i < d; ++i) {
          double sum = 0;
          for (int64_t t = 0; t < kPageTokens; ++t) sum += full.value(layer, g, is_value, t, i);
          wanted.push_back(sum / kPageTokens);
          got.push_back(load<uint16_t>(bytes.data() + kernels::page_mean_bytes(format, layers, kv_heads, d, layer, g) + (is_value * d + i) * 2));
        }
    CHECK(gpu::relative_error(got, wanted) <= gpu::kBf16Error);
    const int64_t ragged = page + kernels::page_mean_bytes(format, layers, kv_heads, d, layer, 0);
    CHECK(std::all_of(bytes.begin() + ragged, bytes.end(), [](uint8_t x) { return x == 0xff; }));
  }
}

// Heads of a width that pages of a format do not have, and no pages at all, are not copied.
inline void check_refused_copies(PageFormat format) {
  kernels::PagedKv kv{nullptr, 2, 96, 0, 0, format};
  CHECK(gpu::library().expand_pages({kv, nullptr, 1}, gpu::stream()) == kernels::kInvalidShape);
  kv.head_dim = 192;
  CHECK(gpu::library().expand_pages({kv, nullptr, 1}, gpu::stream()) == kernels::kInvalidShape);
  kv.head_dim = 64;
  CHECK(gpu::library().expand_pages({kv, nullptr, 0}, gpu::stream()) == kernels::kInvalidShape);
}

struct Case {
  int64_t tokens, first, heads, kv_heads, d;
  int64_t span = 0;
  bool sinks = false;
};

// Of queries of size `spread` and keys and values of size `scale`. `multiplied`: by the tensor cores of compute capability 9.0 as codes, on
// as few multiprocessors as that takes.
inline void check_attention(PageFormat format, const Case& c, float spread, bool multiplied = false, float scale = 1.0f) {
  std::mt19937_64 random(static_cast<uint64_t>(c.tokens * 7919 + c.first * 31 + c.heads * 7 + c.d));
  const int64_t length = c.first + c.tokens;
  Pages pages(format, c.kv_heads, c.d, (length + kPageTokens - 1) / kPageTokens, random, scale);
  pages.spoil_behind(length, multiplied ? 0x7e : 0xff);
  pages.upload();
  const auto q = gpu::random_bf16(static_cast<size_t>(c.tokens * c.heads * c.d), random, spread);
  const gpu::Memory<uint16_t> dq(q), out(q.size());
  kernels::AttentionArgs args{dq.get(), out.get(), pages.kv(false), c.tokens, c.heads, c.first, multiplied ? 1 : gpu::properties().multiprocessors, nullptr};
  CHECK(gpu::library().attention_multiplies_e4m3(args) == multiplied);
  const std::vector<float> sinks = gpu::some_sinks(c.heads);
  const gpu::Memory<float> dsinks(sinks);
  args.span = c.span;
  if (c.sinks) args.sinks = dsinks.get();
  const gpu::Memory<float> workspace = gpu::attention_workspace(args);
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
  std::vector<double> wanted, scores, queries;
  for (size_t i = 0; i < q.size(); ++i) queries.push_back(gpu::at(q, i));
  if (multiplied) round_queries(queries, c.d);
  std::vector<double> kept[2];  // K and V [length, kv_heads, d]
  for (int is_value = 0; is_value < 2; ++is_value)
    for (int64_t s = 0; s < length; ++s)
      for (int64_t g = 0; g < c.kv_heads; ++g)
        for (int64_t i = 0; i < c.d; ++i) kept[is_value].push_back(pages.value(s, g, is_value, i));
  std::vector<uint16_t> rows;
  const int64_t step = std::max<int64_t>(1, c.tokens * c.heads * length / 400000);
  for (int64_t row = 0; row < c.tokens * c.heads; row += step) {
    const int64_t t = row / c.heads, h = row % c.heads, g = h / (c.heads / c.kv_heads), seen = c.first + t + 1, from = c.span > 0 ? std::max<int64_t>(0, seen - c.span) : 0;
    scores.assign(static_cast<size_t>(seen), -INFINITY);
    double highest = -INFINITY, sum = 0;
    for (int64_t s = from; s < seen; ++s) {
      double dot = 0;
      for (int64_t i = 0; i < c.d; ++i) dot += queries[static_cast<size_t>(row * c.d + i)] * kept[0][static_cast<size_t>((s * c.kv_heads + g) * c.d + i)];
      highest = std::max(highest, scores[static_cast<size_t>(s)] = dot / std::sqrt(static_cast<double>(c.d)));
    }
    for (double& score : scores) sum += score = std::exp(score - highest);
    if (c.sinks) sum += std::exp(sinks[static_cast<size_t>(h)] - highest);
    const size_t begin = wanted.size();
    wanted.resize(begin + static_cast<size_t>(c.d), 0);
    for (int64_t s = from; s < seen; ++s)
      for (int64_t i = 0; i < c.d; ++i) wanted[begin + static_cast<size_t>(i)] += scores[static_cast<size_t>(s)] / sum * kept[1][static_cast<size_t>((s * c.kv_heads + g) * c.d + i)];
    rows.insert(rows.end(), got.begin() + row * c.d, got.begin() + (row + 1) * c.d);
  }
  const double error = gpu::relative_error(rows, wanted), worst = gpu::worst_row_error(rows, wanted, c.d);
  std::printf("  T %3d first %6d heads %d/%d d %3d: %.1e, of a row %.1e\n", int(c.tokens), int(c.first), int(c.heads), int(c.kv_heads), int(c.d), error, worst);
  CHECK(error <= (multiplied ? 3e-2 : 5e-3));  // weights are e4m3, or weights and results bf16
  CHECK(multiplied || worst <= 1e-2);
}

inline void check_few_queries(PageFormat format) {
  // Rows that see a span of tokens, and heads with sinks.
  for (const int64_t d : {64, 128, 256})
    for (const Case& c : {Case{1, 5000, 32, 8, d, 128, true}, Case{1, 300, 8, 2, d, 24, true}, Case{1, 20011, 9, 3, d, 0, true}, Case{3, 4000, 28, 4, d, 129, false}, Case{16, 1000, 32, 8, d, 1, true}, Case{130, 60, 4, 2, d, 100, true}, Case{2, 40, 16, 2, d, 5000, true}})
      check_attention(format, c, 0.5f);
  for (const int64_t d : {64, 128, 256})
    for (const Case& c : {Case{1, 0, 1, 1, d}, Case{1, 127, 9, 3, d}, Case{1, 128, 8, 8, d}, Case{1, 5000, 32, 8, d}, Case{1, 20011, 9, 3, d}, Case{3, 14, 28, 4, d}, Case{16, 4000, 32, 8, d}, Case{5, 1000, 24, 1, d}, Case{130, 60, 4, 2, d}})
      check_attention(format, c, 0.5f);
  // Tiles of eight rows: groups that fill them, that end in one, and that several tokens share.
  for (const Case& c : {Case{1, 300, 16, 2, 256}, Case{1, 5000, 12, 2, 256}, Case{1, 20011, 24, 2, 256}, Case{1, 40000, 6, 1, 256}, Case{1, 4000, 17, 1, 256}, Case{2, 31, 12, 2, 256}, Case{2, 0, 24, 4, 256}, Case{7, 3000, 12, 2, 256}, Case{1, 31, 8, 1, 256}, Case{1, 32, 8, 1, 256}})
    check_attention(format, c, 0.5f);
  for (const int64_t d : {64, 128, 256}) check_attention(format, {1, 3000, 8, 2, d}, 20.0f);  // scores of hundreds
  for (const float small : {0x1p-30f, 0x1p-12f})
    for (const int64_t tokens : {1, 3}) {
      check_attention(format, {tokens, 1000, 8, 2, 256}, 0.5f * small, false, 1 / small);
      check_attention(format, {tokens, 1000, 8, 2, 128}, 0.5f * small, false, 1 / small);
      check_attention(format, {tokens, 1000, 9, 3, 64}, 0.5f / small, false, small);
    }
}

}  // namespace narrow_pages
