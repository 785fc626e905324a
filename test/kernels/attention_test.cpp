// Attention over scattered pages against double: ragged counts, prefixes, groups, splits over parts of the keys.
#include <algorithm>
#include <numeric>

#include "kernels/gpu.h"

using namespace longview;

namespace {

struct Case {
  int64_t tokens, first, heads, kv_heads, d;
  int64_t span = 0;
  bool sinks = false;
};

void check_attention(const Case& c, float spread, int32_t architecture) {
  std::mt19937_64 random(static_cast<uint64_t>(c.tokens * 7919 + c.first * 31 + c.heads * 7 + c.d));
  const int64_t length = c.first + c.tokens, pages = (length + kernels::kPageTokens - 1) / kernels::kPageTokens, layers = 2, layer = 1;
  const int64_t block = kernels::kPageTokens * c.d, page = layers * c.kv_heads * 2 * block;
  const auto q = gpu::random_bf16(static_cast<size_t>(c.tokens * c.heads * c.d), random, spread);
  const auto k = gpu::random_bf16(static_cast<size_t>(length * c.kv_heads * c.d), random);
  const auto v = gpu::random_bf16(static_cast<size_t>(length * c.kv_heads * c.d), random);

  // Pages in random order; everything that is not this layer's K and V of a written token is huge.
  std::vector<int64_t> slots(static_cast<size_t>(pages));
  std::iota(slots.begin(), slots.end(), 0);
  std::shuffle(slots.begin(), slots.end(), random);
  std::vector<uint16_t> storage(static_cast<size_t>(pages * page), float_to_bf16(1e30f));
  for (int64_t t = 0; t < length; ++t)
    for (int64_t g = 0; g < c.kv_heads; ++g) {
      const int64_t to = slots[static_cast<size_t>(t / kernels::kPageTokens)] * page + (layer * c.kv_heads + g) * 2 * block;
      for (int64_t i = 0; i < c.d; ++i) {
        const auto from = static_cast<size_t>((t * c.kv_heads + g) * c.d + i);
        const auto at = static_cast<size_t>(to + kernels::page_offset(t % kernels::kPageTokens, i));
        storage[at] = k[from];
        storage[at + static_cast<size_t>(block)] = v[from];
      }
    }
  const gpu::Memory<uint16_t> dq(q), dkv(storage), out(q.size());
  std::vector<void*> pointers;
  for (const int64_t slot : slots) pointers.push_back(dkv.get() + slot * page);
  const gpu::Memory<void*> table(pointers);
  kernels::AttentionArgs args{dq.get(), out.get(), {table.get(), c.kv_heads, c.d, layer}, c.tokens, c.heads, c.first, gpu::properties().multiprocessors, nullptr, architecture};
  const std::vector<float> sinks = gpu::some_sinks(c.heads);
  const gpu::Memory<float> dsinks(sinks);
  args.span = c.span;
  if (c.sinks) args.sinks = dsinks.get();
  const gpu::Memory<float> workspace = gpu::attention_workspace(args);
  args.workspace = workspace.get();
  GPU(attention(args, gpu::stream()));
  const std::vector<uint16_t> got = out.read();

  if (c.tokens == 1) {  // as recorded for another position of as many parts: the one on the device counts
    const gpu::Memory<int64_t> position(std::vector<int64_t>{c.first});
    const gpu::Memory<uint16_t> again(q.size());
    kernels::AttentionArgs recorded = args;
    recorded.position = position.get();
    recorded.out = again.get();
    recorded.first_position = length / 256 * 256 + 254;
    if (gpu::library().attention_workspace_floats(recorded) == gpu::library().attention_workspace_floats(args)) {
      GPU(attention(recorded, gpu::stream()));
      CHECK(again.read() == got);
    }
    recorded.first_position = std::max<int64_t>(0, c.first - 1);
    if (gpu::library().attention_workspace_floats(recorded) == gpu::library().attention_workspace_floats(args)) {
      GPU(attention(recorded, gpu::stream()));
      CHECK(again.read() == got);
    }
  }

  // Large cases are checked on some of their rows.
  const int64_t step = std::max<int64_t>(1, c.tokens * c.heads * length / 4000000);
  std::vector<double> wanted, scores;
  std::vector<uint16_t> rows;
  for (int64_t row = 0; row < c.tokens * c.heads; row += step) {
    const int64_t t = row / c.heads, h = row % c.heads, g = h / (c.heads / c.kv_heads), seen = c.first + t + 1, from = c.span > 0 ? std::max<int64_t>(0, seen - c.span) : 0;
    scores.assign(static_cast<size_t>(seen), -INFINITY);
    double highest = -INFINITY, sum = 0;
    for (int64_t s = from; s < seen; ++s) {
      double dot = 0;
      for (int64_t i = 0; i < c.d; ++i) dot += gpu::at(q, static_cast<size_t>(row * c.d + i)) * gpu::at(k, static_cast<size_t>((s * c.kv_heads + g) * c.d + i));
      highest = std::max(highest, scores[static_cast<size_t>(s)] = dot / std::sqrt(static_cast<double>(c.d)));
    }
    for (double& score : scores) sum += score = std::exp(score - highest);
    if (c.sinks) sum += std::exp(sinks[static_cast<size_t>(h)] - highest);
    const size_t begin = wanted.size();
    wanted.resize(begin + static_cast<size_t>(c.d), 0);
    for (int64_t s = from; s < seen; ++s)
      for (int64_t i = 0; i < c.d; ++i) wanted[begin + static_cast<size_t>(i)] += scores[static_cast<size_t>(s)] / sum * gpu::at(v, static_cast<size_t>((s * c.kv_heads + g) * c.d + i));
    rows.insert(rows.end(), got.begin() + row * c.d, got.begin() + (row + 1) * c.d);
  }
  for (const uint16_t x : got) CHECK(std::isfinite(bf16_to_float(x)));
  const double error = gpu::relative_error(rows, wanted), worst = gpu::worst_row_error(rows, wanted, c.d);
  std::printf("  %s T %5d first %6d heads %d/%d d %3d span %d%s: %.1e, of a row %.1e\n", architecture ? "sm80" : "best", int(c.tokens), int(c.first), int(c.heads), int(c.kv_heads), int(c.d), int(c.span), c.sinks ? ", sinks" : "", error, worst);
  CHECK(error <= 5e-3);  // weights and results are bf16
  CHECK(worst <= 1e-2);
}

void check_attention(const Case& c, float spread) {
  for (const int32_t architecture : {0, 80}) check_attention(c, spread, architecture);
}

}  // namespace

TEST("prefill: ragged chunks behind ragged prefixes") {
  for (const int64_t d : {64, 128})
    for (const Case& c : {Case{1, 0, 1, 1, d}, Case{17, 0, 4, 2, d}, Case{128, 0, 9, 3, d}, Case{300, 1, 4, 1, d}, Case{129, 127, 8, 2, d}, Case{64, 1000, 3, 3, d},
                          Case{1000, 333, 9, 3, d}, Case{77, 4096, 12, 2, d}, Case{3000, 0, 12, 4, d}, Case{1500, 2901, 28, 4, d}, Case{2200, 63, 8, 8, d}, Case{5, 0, 16, 1, d}, Case{300, 200, 16, 1, d}, Case{130, 77, 32, 4, d}})
      check_attention(c, 1.0f);
}

TEST("heads of 256: one row, few rows, tiles of 64 and of 128, each of them split and whole, and no multiple of any") {
  constexpr int64_t d = 256;
  for (const Case& c : {Case{1, 0, 1, 1, d},      Case{1, 0, 16, 2, d},     Case{1, 15, 24, 2, d},    Case{1, 16, 24, 4, d},   Case{1, 63, 16, 2, d},   Case{1, 64, 16, 1, d},    Case{1, 127, 12, 2, d},  Case{1, 128, 8, 8, d},
                        Case{1, 300, 24, 4, d},   Case{1, 5000, 16, 2, d},  Case{1, 20011, 24, 4, d}, Case{1, 40000, 16, 1, d}, Case{2, 511, 16, 2, d},  Case{16, 1000, 2, 2, d},  Case{1, 700, 17, 1, d},  Case{3, 20000, 24, 2, d},
                        Case{5, 0, 16, 1, d},     Case{11, 95, 12, 2, d},   Case{20, 9999, 24, 4, d}, Case{17, 0, 4, 2, d},    Case{64, 1000, 3, 3, d}, Case{128, 0, 9, 3, d},    Case{129, 127, 8, 2, d}, Case{77, 4096, 12, 2, d},
                        Case{130, 77, 32, 4, d},  Case{300, 1, 24, 2, d},   Case{31, 33, 6, 1, d},    Case{1000, 333, 16, 2, d}, Case{2200, 63, 24, 4, d}, Case{1500, 2901, 16, 2, d}})
    check_attention(c, 1.0f);
  for (const Case& c : {Case{200, 300, 16, 2, d}, Case{2400, 300, 8, 4, d}, Case{1, 3000, 16, 2, d}, Case{3, 3000, 24, 2, d}}) check_attention(c, 40.0f);  // scores of hundreds
}

TEST("decode and short turns over long contexts") {
  for (const int64_t d : {64, 128})
    for (const Case& c : {Case{1, 127, 9, 3, d}, Case{1, 128, 8, 8, d}, Case{1, 5000, 32, 8, d}, Case{1, 20011, 9, 3, d}, Case{3, 20000, 28, 4, d}, Case{20, 9999, 9, 3, d},
                          Case{1, 0, 16, 1, d}, Case{1, 63, 12, 2, d}, Case{1, 300, 4, 4, d}, Case{1, 40000, 16, 1, d}, Case{4, 3000, 8, 2, d}, Case{5, 6014, 9, 3, d}, Case{16, 1000, 2, 2, d}})
      check_attention(c, 1.0f);
}

TEST("rows that see a span of tokens, shorter than a step, as long as a page and longer than the context, and heads with sinks") {
  for (const int64_t d : {64, 128, 256})
    for (const Case& c : {Case{1, 127, 9, 3, d, 24, true}, Case{1, 5000, 16, 2, d, 128, true}, Case{1, 5000, 16, 2, d, 0, true}, Case{1, 9000, 9, 3, d, 129, false}, Case{3, 4100, 28, 4, d, 1000, true},
                          Case{77, 3000, 12, 2, d, 127, true}, Case{77, 3000, 12, 2, d, 1, false}, Case{300, 1, 4, 1, d, 9000, true}, Case{300, 200, 16, 1, d, 0, true}, Case{2200, 63, 8, 8, d, 128, true},
                          Case{2200, 63, 8, 8, d, 24, false}, Case{1500, 2901, 28, 4, d, 1000, true}, Case{1500, 901, 28, 4, d, 0, true}})
      check_attention(c, 1.0f);
}

TEST("scores of hundreds keep their softmax") {
  check_attention({200, 300, 4, 2, 128}, 40.0f);
  check_attention({2400, 300, 8, 4, 128}, 40.0f);
  check_attention({1, 3000, 8, 2, 64}, 40.0f);
}

TEST("queries beyond 2^31 elements") {
  if (gpu::properties().free_memory_bytes < int64_t{10} << 30) SKIP("this needs 10 GiB of the GPU's memory");
  const int64_t tokens = 4100, heads = 4096, d = 128, pages = (tokens + kernels::kPageTokens - 1) / kernels::kPageTokens, block = kernels::kPageTokens * d;
  CHECK(tokens * heads * d > int64_t{1} << 31);
  std::mt19937_64 random(3);
  const gpu::Memory<uint16_t> q(static_cast<size_t>(tokens * heads * d)), out(static_cast<size_t>(tokens * heads * d)), seed(gpu::random_bf16((size_t{1} << 20) - 8, random));
  for (size_t done = 0; done < q.bytes(); done += seed.bytes())
    GPU(copy_on_device(reinterpret_cast<char*>(q.get()) + done, seed.get(), std::min(seed.bytes(), q.bytes() - done), gpu::stream()));
  const std::vector<uint16_t> kv = gpu::random_bf16(static_cast<size_t>(pages * 2 * block), random);
  const gpu::Memory<uint16_t> dkv(kv);
  std::vector<void*> pointers;
  for (int64_t i = 0; i < pages; ++i) pointers.push_back(dkv.get() + i * 2 * block);
  const gpu::Memory<void*> table(pointers);
  for (const int32_t architecture : {0, 80}) {
    GPU(fill(out.get(), 0xff, out.bytes(), gpu::stream()));
    GPU(attention({q.get(), out.get(), {table.get(), 1, d, 0}, tokens, heads, 0, gpu::properties().multiprocessors, nullptr, architecture}, gpu::stream()));
    for (const int64_t row : {tokens * heads - 1, tokens * heads - heads, tokens * heads / 2 + 77}) {
      std::vector<uint16_t> got(static_cast<size_t>(d)), query(got);
      GPU(copy_to_host(got.data(), out.get() + row * d, got.size() * 2, gpu::stream()));
      GPU(copy_to_host(query.data(), q.get() + row * d, query.size() * 2, gpu::stream()));
      GPU(synchronize(gpu::stream()));
      const auto at = [&](int64_t token, int is_value, int64_t i) { return gpu::at(kv, static_cast<size_t>((token / kernels::kPageTokens * 2 + is_value) * block + kernels::page_offset(token % kernels::kPageTokens, i))); };
      std::vector<double> wanted(static_cast<size_t>(d));
      double sum = 0;
      for (int64_t token = 0; token <= row / heads; ++token) {
        double dot = 0;
        for (int64_t i = 0; i < d; ++i) dot += gpu::at(query, static_cast<size_t>(i)) * at(token, 0, i);
        const double weight = std::exp(dot / std::sqrt(static_cast<double>(d)));
        sum += weight;
        for (int64_t i = 0; i < d; ++i) wanted[static_cast<size_t>(i)] += weight * at(token, 1, i);
      }
      for (double& x : wanted) x /= sum;
      CHECK(gpu::relative_error(got, wanted) <= 5e-3);
    }
  }
}

TEST("refusals") {
  const gpu::Memory<uint16_t> some(4096);
  kernels::AttentionArgs args{some.get(), some.get(), {nullptr, 2, 96, 0}, 1, 4, 0, 132, nullptr};
  CHECK(gpu::library().attention(args, gpu::stream()) == kernels::kInvalidShape);
  for (const int64_t d : {192, 320, 512}) {
    args.kv.head_dim = d;
    CHECK(gpu::library().attention(args, gpu::stream()) == kernels::kInvalidShape);
  }
  args.kv.head_dim = 64;
  args.heads = 5;
  CHECK(gpu::library().attention(args, gpu::stream()) == kernels::kInvalidShape);
}

TEST_MAIN()
