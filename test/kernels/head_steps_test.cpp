// One token's heads in two launches, normed, rotated, appended, and attended to and gated, beside a launch for each of these steps: the same
// queries, pages and results, bit for bit.
#include "kernels/gpu.h"

using namespace longview;
using kernels::kPageTokens;
using kernels::PageFormat;

namespace {

struct Case {
  int64_t first, heads, kv_heads, d, half;
};

// `gated`: heads of q have gates behind them. `fault`: a value of the token's V that is not finite, or 0.
void check_steps(const Case& c, PageFormat format, bool gated, float fault = 0) {
  constexpr int64_t kLayers = 2, kLayer = 1;
  std::mt19937_64 random(static_cast<uint64_t>(c.first * 31 + c.heads * 7 + c.d + c.half));
  const int64_t width = c.heads * c.d, kv_width = c.kv_heads * c.d, pages = c.first / kPageTokens + 1, page = kernels::page_bytes(format, kLayers, c.kv_heads, c.d, true);
  const auto count = [](int64_t n) { return static_cast<size_t>(n); };
  std::vector<double> frequencies;
  for (int64_t i = 0; i < c.half; ++i) frequencies.push_back(std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(c.half)));
  const gpu::Memory<double> df(frequencies);
  const gpu::Memory<uint8_t> storage(std::vector<uint8_t>(count(pages * page), 0));
  std::vector<void*> pointers;
  for (int64_t i = 0; i < pages; ++i) pointers.push_back(storage.get() + (pages - 1 - i) * page);
  const gpu::Memory<void*> table(pointers);
  const kernels::PagedKv kv{table.get(), c.kv_heads, c.d, kLayer, kLayers, format};

  // The tokens before it.
  if (c.first > 0) {
    const gpu::Memory<float> cosine(count(c.first * c.half)), sine(count(c.first * c.half));
    const gpu::Memory<uint16_t> q(count(c.first * width)), k(gpu::random_bf16(count(c.first * kv_width), random)), v(gpu::random_bf16(count(c.first * kv_width), random));
    GPU(rope_table({df.get(), cosine.get(), sine.get(), c.first, c.half, 0, 1}, gpu::stream()));
    GPU(rope_append({q.get(), q.get(), k.get(), v.get(), cosine.get(), sine.get(), kv, c.first, c.heads, c.d, c.half, 0, 0}, gpu::stream()));
  }
  const std::vector<uint8_t> before = storage.read();

  const std::vector<uint16_t> both = gpu::random_bf16(count(2 * width), random, 2), k = gpu::random_bf16(count(kv_width), random);
  std::vector<uint16_t> v = gpu::random_bf16(count(kv_width), random);
  if (fault != 0) v[random() % v.size()] = float_to_bf16(fault);
  const gpu::Memory<float> q_norm(gpu::random_float(count(c.d), random)), k_norm(gpu::random_float(count(c.d), random)), cosine(count(c.half)), sine(count(c.half));
  const gpu::Memory<uint16_t> from(both), kept_k(k), dv(v), q(count(width)), gates(count(width)), normed_k(k), out(count(width));
  const gpu::Memory<int64_t> position(std::vector<int64_t>{c.first});
  const float epsilon = 1e-6f;
  GPU(rope_table({df.get(), cosine.get(), sine.get(), 1, c.half, c.first, 1}, gpu::stream()));
  kernels::RopeAppendArgs append{q.get(), q.get(), normed_k.get(), dv.get(), cosine.get(), sine.get(), kv, 1, c.heads, c.d, c.half, c.first, 0};
  kernels::AttentionArgs args{q.get(), out.get(), kv, 1, c.heads, c.first, gpu::properties().multiprocessors, nullptr};
  const gpu::Memory<float> workspace = gpu::attention_workspace(args);
  args.workspace = workspace.get();
  CHECK(kernels::attention_gates(args));

  // Without gates the first half of `both` is q.
  if (gated) GPU(split_heads({from.get(), q.get(), gates.get(), 1, c.heads, c.d}, gpu::stream()));
  else GPU(copy_on_device(q.get(), from.get(), q.bytes(), gpu::stream()));
  GPU(rms_norm_heads({q.get(), q_norm.get(), c.heads, normed_k.get(), k_norm.get(), c.kv_heads, c.d, epsilon}, gpu::stream()));
  GPU(rope_append(append, gpu::stream()));
  GPU(attention(args, gpu::stream()));
  if (gated) GPU(sigmoid_mul({out.get(), gates.get(), width}, gpu::stream()));
  const std::vector<uint8_t> wanted_pages = storage.read();
  const std::vector<uint16_t> wanted_q = q.read(), wanted = out.read();
  CHECK(wanted_pages != before);

  append.k = kept_k.get(), append.q_norm = q_norm.get(), append.k_norm = k_norm.get(), append.epsilon = epsilon;
  if (gated) append.q = from.get(), append.q_stride = args.gate_stride = 2 * c.d, args.gates = from.get() + c.d;
  for (const int64_t* at : {static_cast<const int64_t*>(nullptr), static_cast<const int64_t*>(position.get())}) {
    GPU(copy_to_device(storage.get(), before.data(), before.size(), gpu::stream()));
    GPU(fill(out.get(), 0, out.bytes(), gpu::stream()));
    if (gated) GPU(fill(q.get(), 0, q.bytes(), gpu::stream()));
    else GPU(copy_on_device(q.get(), from.get(), q.bytes(), gpu::stream()));
    append.position = args.position = at;
    GPU(rope_append(append, gpu::stream()));
    GPU(attention(args, gpu::stream()));
    CHECK(q.read() == wanted_q);
    CHECK(storage.read() == wanted_pages);
    CHECK(out.read() == wanted);
    CHECK(from.read() == both);
    CHECK(kept_k.read() == k);
  }
}

}  // namespace

TEST("queries, pages and gated results are those of a launch for each step") {
  for (const PageFormat format : {PageFormat::kBFloat16, PageFormat::kQ8, PageFormat::kQ4, PageFormat::kE4M3}) {
    if (format == PageFormat::kE4M3 && gpu::properties().major * 10 + gpu::properties().minor < 89) continue;
    for (const bool gated : {true, false})
      for (const auto& [d, half] : {std::pair<int64_t, int64_t>{64, 32}, {64, 8}, {128, 64}, {128, 32}, {256, 128}, {256, 32}})
        for (const Case& c : {Case{0, 9, 3, d, half}, Case{1, 4, 4, d, half}, Case{127, 12, 2, d, half}, Case{128, 16, 1, d, half}, Case{300, 16, 4, d, half}, Case{5000, 24, 4, d, half}}) check_steps(c, format, gated);
  }
}

TEST("so they are of a token that is not finite") {
  for (const PageFormat format : {PageFormat::kBFloat16, PageFormat::kQ8, PageFormat::kQ4})
    for (const float fault : {INFINITY, NAN, -0x1p125f})
      for (const Case& c : {Case{0, 9, 3, 64, 32}, Case{127, 12, 2, 128, 64}, Case{300, 16, 4, 256, 32}}) check_steps(c, format, true, fault);
}

TEST("refusals") {
  const gpu::Memory<uint16_t> some(8192), to(4096), storage(4 * kPageTokens * 64);
  const gpu::Memory<void*> table(std::vector<void*>{storage.get()});
  const gpu::Memory<float> angles(std::vector<float>(64, 0.5f));
  kernels::RopeAppendArgs good{some.get(), to.get(), some.get(), some.get(), angles.get(), angles.get(), {table.get(), 2, 64, 0}, 1, 4, 64, 32, 0, 0};
  good.q_norm = good.k_norm = angles.get(), good.q_stride = 128;
  const auto refused = [&](kernels::Status wanted, auto change) {
    kernels::RopeAppendArgs args = good;
    change(args);
    return gpu::library().rope_append(args, gpu::stream()) == wanted;
  };
  using Args = kernels::RopeAppendArgs;
  CHECK(refused(kernels::kOk, [](Args&) {}));
  CHECK(refused(kernels::kInvalidShape, [](Args& a) { a.tokens = 2; }));
  CHECK(refused(kernels::kInvalidShape, [](Args& a) { a.k_norm = nullptr; }));
  CHECK(refused(kernels::kInvalidShape, [](Args& a) { a.adjacent = 1; }));
  CHECK(refused(kernels::kInvalidShape, [](Args& a) { a.half = 31; }));
  CHECK(refused(kernels::kInvalidShape, [](Args& a) { a.head_dim = 62, a.half = 30; }));
  CHECK(refused(kernels::kInvalidShape, [](Args& a) { a.q_stride = 132; }));
  CHECK(refused(kernels::kInvalidShape, [](Args& a) { a.q_stride = 56; }));
  CHECK(refused(kernels::kInvalidShape, [](Args& a) { a.q = a.rotated; }));
  CHECK(refused(kernels::kInvalidAlignment, [](Args& a) { ++a.q_norm; }));
  CHECK(refused(kernels::kInvalidAlignment, [&](Args& a) { a.k = some.get() + 1; }));

  kernels::AttentionArgs args{to.get(), to.get() + 2048, {table.get(), 2, 64, 0}, 1, 4, 0, 132, nullptr};
  args.gates = some.get(), args.gate_stride = 64;
  CHECK(gpu::library().attention(args, gpu::stream()) == kernels::kOk);
  args.gate_stride = 60;
  CHECK(gpu::library().attention(args, gpu::stream()) == kernels::kInvalidShape);
  args.gate_stride = 64, args.tokens = 2;
  CHECK(gpu::library().attention(args, gpu::stream()) == kernels::kInvalidShape);
  args.tokens = 1, args.heads = 34;
  CHECK(!kernels::attention_gates(args));
  CHECK(gpu::library().attention(args, gpu::stream()) == kernels::kInvalidShape);
  args.heads = 4, args.gates = some.get() + 1;
  CHECK(gpu::library().attention(args, gpu::stream()) == kernels::kInvalidAlignment);
}

TEST_MAIN()
