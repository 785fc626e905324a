// A token that attention appends on its way, beside launch_rope_append and attention behind it: the same pages and results, bit for bit.
#include "kernels/gpu.h"

using namespace longview;
using kernels::kPageTokens;
using kernels::PageFormat;

namespace {

struct Case {
  int64_t first, heads, kv_heads, d;
};

// `fault`: a value of the token's V that is not finite, or 0.
void check_append(const Case& c, float fault = 0) {
  constexpr int64_t kLayers = 2, kLayer = 1;
  std::mt19937_64 random(static_cast<uint64_t>(c.first * 31 + c.heads * 7 + c.d));
  const int64_t half = c.d / 2, width = c.heads * c.d, kv_width = c.kv_heads * c.d, pages = c.first / kPageTokens + 1, page = kernels::page_bytes(PageFormat::kBFloat16, kLayers, c.kv_heads, c.d, true);
  std::vector<double> frequencies;
  for (int64_t i = 0; i < half; ++i) frequencies.push_back(std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half)));
  const gpu::Memory<double> df(frequencies);
  const gpu::Memory<uint8_t> storage(std::vector<uint8_t>(static_cast<size_t>(pages * page), 0));
  std::vector<void*> pointers;
  for (int64_t i = 0; i < pages; ++i) pointers.push_back(storage.get() + (pages - 1 - i) * page);
  const gpu::Memory<void*> table(pointers);
  const kernels::PagedKv kv{table.get(), c.kv_heads, c.d, kLayer, kLayers};

  // The tokens before it.
  if (c.first > 0) {
    const gpu::Memory<float> cosine(static_cast<size_t>(c.first * half)), sine(static_cast<size_t>(c.first * half));
    const gpu::Memory<uint16_t> q(static_cast<size_t>(c.first * width)), k(gpu::random_bf16(static_cast<size_t>(c.first * kv_width), random)), v(gpu::random_bf16(static_cast<size_t>(c.first * kv_width), random));
    GPU(rope_table({df.get(), cosine.get(), sine.get(), c.first, half, 0, 1}, gpu::stream()));
    GPU(rope_append({q.get(), q.get(), k.get(), v.get(), cosine.get(), sine.get(), kv, c.first, c.heads, c.d, half, 0, 0}, gpu::stream()));
  }
  const std::vector<uint8_t> before = storage.read();

  const auto q = gpu::random_bf16(static_cast<size_t>(width), random), k = gpu::random_bf16(static_cast<size_t>(kv_width), random);
  auto v = gpu::random_bf16(k.size(), random);
  if (fault != 0) v[random() % v.size()] = float_to_bf16(fault);
  const gpu::Memory<uint16_t> dq(q), rotated(q.size()), dk(k), dv(v), out(q.size());
  const gpu::Memory<float> cosine(static_cast<size_t>(half)), sine(static_cast<size_t>(half));
  const gpu::Memory<int64_t> position(std::vector<int64_t>{c.first});
  GPU(rope_table({df.get(), cosine.get(), sine.get(), 1, half, c.first, 1}, gpu::stream()));
  kernels::AttentionArgs args{rotated.get(), out.get(), kv, 1, c.heads, c.first, gpu::properties().multiprocessors, nullptr};
  const gpu::Memory<float> workspace = gpu::attention_workspace(args);
  args.workspace = workspace.get();
  CHECK(gpu::library().attention_appends(args));

  GPU(rope_append({dq.get(), rotated.get(), dk.get(), dv.get(), cosine.get(), sine.get(), kv, 1, c.heads, c.d, half, c.first, 0}, gpu::stream()));
  GPU(attention(args, gpu::stream()));
  const std::vector<uint8_t> wanted_pages = storage.read();
  const std::vector<uint16_t> wanted = out.read();
  CHECK(wanted_pages != before);

  for (const int64_t* at : {static_cast<const int64_t*>(nullptr), static_cast<const int64_t*>(position.get())}) {
    GPU(copy_to_device(storage.get(), before.data(), before.size(), gpu::stream()));
    GPU(fill(out.get(), 0, q.size() * sizeof(uint16_t), gpu::stream()));
    args.q = dq.get();
    args.position = at;
    args.appended = {dk.get(), dv.get(), cosine.get(), sine.get()};
    GPU(attention(args, gpu::stream()));
    CHECK(storage.read() == wanted_pages);
    CHECK(out.read() == wanted);
  }
}

}  // namespace

TEST("keys, values, means and results are those of rotating and appending first") {
  for (const int64_t d : {64, 128})
    for (const Case& c : {Case{0, 9, 3, d}, Case{1, 4, 4, d}, Case{31, 8, 2, d}, Case{32, 8, 8, d}, Case{127, 12, 2, d}, Case{128, 16, 1, d}, Case{300, 28, 4, d}, Case{5000, 32, 8, d}, Case{8191, 32, 8, d}, Case{20011, 9, 3, d}})
      check_append(c);
}

TEST("so they are of a token that is not finite") {
  for (const int64_t d : {64, 128})
    for (const float fault : {INFINITY, NAN, -0x1p125f})
      for (const Case& c : {Case{0, 9, 3, d}, Case{127, 12, 2, d}, Case{300, 28, 4, d}, Case{5000, 32, 8, d}}) check_append(c, fault);
}

TEST("refusals") {
  const gpu::Memory<uint16_t> some(4096);
  const gpu::Memory<float> angles(64);
  kernels::AttentionArgs args{some.get(), some.get(), {nullptr, 1, 64, 0}, 2, 4, 0, 132, nullptr};
  args.appended = {some.get(), some.get(), angles.get(), angles.get()};
  CHECK(!gpu::library().attention_appends(args));
  CHECK(gpu::library().attention(args, gpu::stream()) == kernels::kInvalidShape);  // two tokens
  args.tokens = 1;
  args.kv.head_dim = 256;
  CHECK(!gpu::library().attention_appends(args));
  CHECK(gpu::library().attention(args, gpu::stream()) == kernels::kInvalidShape);  // heads of 256
  args.kv.head_dim = 64;
  args.heads = 17;
  CHECK(!gpu::library().attention_appends(args));
  CHECK(gpu::library().attention(args, gpu::stream()) == kernels::kInvalidShape);  // too many heads of a KV head
  args.heads = 4;
  for (const PageFormat format : {PageFormat::kQ8, PageFormat::kQ4}) {
    args.kv.format = format;
    CHECK(!gpu::library().attention_appends(args));
    CHECK(gpu::library().attention(args, gpu::stream()) == kernels::kInvalidShape);  // pages of another format
  }
  args.kv.format = PageFormat::kBFloat16;
  args.appended.v = nullptr;
  CHECK(gpu::library().attention(args, gpu::stream()) == kernels::kInvalidShape);
  args.appended.v = some.get() + 1;
  CHECK(gpu::library().attention(args, gpu::stream()) == kernels::kInvalidAlignment);
}

TEST_MAIN()
