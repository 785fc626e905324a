// Kernels on the GPU at the sizes of an 8B model, timed by events: build/native/cuda_bench [name]. A line a kernel: median
// milliseconds of ten runs after two, and TFLOP/s of useful work or GB/s of bytes that must be read.
#include <algorithm>
#include <functional>
#include <tuple>

#include "base/error.h"
#include "cuda/blas.h"
#include "kernels/gpu.h"

using namespace longview;
using kernels::Element;
using kernels::WeightType;

namespace {

const char* only = nullptr;

double median_ms(const std::function<void()>& launch, kernels::Stream stream) {
  kernels::Event begin = nullptr, end = nullptr;
  GPU(create_event(&begin));
  GPU(create_event(&end));
  std::vector<float> times;
  for (int run = 0; run < 12; ++run) {
    GPU(record_event(begin, stream));
    launch();
    GPU(record_event(end, stream));
    float ms = 0;
    GPU(elapsed_ms(begin, end, &ms));
    if (run >= 2) times.push_back(ms);
  }
  GPU(destroy_event(begin));
  GPU(destroy_event(end));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

void report(const std::string& name, double flop, double bytes, const std::function<void()>& launch, kernels::Stream stream = gpu::stream()) {
  if (only && name.find(only) == std::string::npos) return;
  const double ms = median_ms(launch, stream);
  std::printf("%-44s %9.3f ms", name.c_str(), ms);
  if (flop > 0) std::printf(" %8.1f TFLOP/s", flop / ms / 1e9);
  if (bytes > 0) std::printf(" %8.1f GB/s", bytes / ms / 1e6);
  std::printf("\n");
  std::fflush(stdout);
}

// Random bf16 without a host copy of its size: one random megabyte, repeated.
class Random {
 public:
  explicit Random(size_t count) : memory_(count) {
    std::mt19937_64 random(5);
    const gpu::Memory<uint16_t> seed(gpu::random_bf16(size_t{1} << 19, random));
    for (size_t done = 0; done < memory_.bytes();) {
      const size_t bytes = std::min(seed.bytes(), memory_.bytes() - done);
      GPU(copy_on_device(reinterpret_cast<char*>(memory_.get()) + done, seed.get(), bytes, gpu::stream()));
      done += bytes;
    }
    GPU(synchronize(gpu::stream()));
  }
  uint16_t* get() const { return memory_.get(); }

 private:
  gpu::Memory<uint16_t> memory_;
};

void bench_copy() {
  const size_t bytes = size_t{2} << 30;
  const Random from(bytes / 2);
  const gpu::Memory<uint16_t> to(bytes / 2);
  report("copy 2 GiB (read + written)", 0, 2.0 * static_cast<double>(bytes), [&] { GPU(copy_on_device(to.get(), from.get(), bytes, gpu::stream())); });
}

// What decode attention reads in one launch, beside a copy that moves as many bytes in one: what a launch takes outside of its
// kernel, some 8 us, is in both.
void report_decode(const std::string& name, double bytes, const std::function<void()>& launch) {
  report(name, 0, bytes, launch);
  const std::string copy = "as many bytes copied: " + name;
  if (only && copy.find(only) == std::string::npos) return;
  const auto count = static_cast<size_t>(bytes) / 4;  // elements of two bytes, read and written
  const Random from(count);
  const gpu::Memory<uint16_t> to(count);
  report(copy, 0, bytes, [&] { GPU(copy_on_device(to.get(), from.get(), count * 2, gpu::stream())); });
}

void bench_linear(int64_t m, int64_t n, int64_t k) {
  const Random x(static_cast<size_t>(m * k)), w(static_cast<size_t>(n * k));
  const gpu::Memory<uint16_t> out(static_cast<size_t>(m * n));
  const kernels::GemmArgs args{x.get(), w.get(), WeightType::kBFloat16, nullptr, out.get(), Element::kBFloat16, m, n, k};
  const double flop = 2.0 * static_cast<double>(m * n) * static_cast<double>(k);
  report(format("gemm %d x %d x %d bf16", int(m), int(n), int(k)), flop, 0, [&] { GPU(gemm(args, gpu::stream())); });
  static const cuda::Device device(gpu::library(), 0);
  static const std::unique_ptr<cuda::Blas> blas = cuda::Blas::open(device);
  if (!blas) return;
  report(format("the same by %s", blas->name().c_str()), flop, 0, [&] {
    if (!blas->multiply({x.get(), w.get(), nullptr, out.get(), m, n, k})) std::printf("no kernel\n");
  }, device.stream());
}

// The same in e4m3, and bf16 added to float32 as the residual stream is.
void bench_linear_e4m3(int64_t m, int64_t n, int64_t k) {
  if (gpu::properties().major != 9) return;
  const Random x(static_cast<size_t>(m * k)), w(static_cast<size_t>(n * k));
  const gpu::Memory<uint8_t> cx(static_cast<size_t>(kernels::e4m3_bytes(m, k))), cw(static_cast<size_t>(kernels::e4m3_bytes(n, k)));
  GPU(quantize_rows({x.get(), cx.get(), m, k}, gpu::stream()));
  GPU(quantize_rows({w.get(), cw.get(), n, k}, gpu::stream()));
  const gpu::Memory<uint16_t> out(static_cast<size_t>(m * n));
  const gpu::Memory<float> sum(std::vector<float>(static_cast<size_t>(m * n)));
  GPU(synchronize(gpu::stream()));
  const double flop = 2.0 * static_cast<double>(m * n) * static_cast<double>(k);
  const std::string shape = format("%d x %d x %d", int(m), int(n), int(k));
  kernels::GemmArgs args{cx.get(), cw.get(), WeightType::kE4M3, nullptr, out.get(), Element::kBFloat16, m, n, k};
  report("gemm " + shape + " e4m3", flop, 0, [&] { GPU(gemm(args, gpu::stream())); });
  kernels::GemmArgs added{cx.get(), cw.get(), WeightType::kE4M3, nullptr, sum.get(), Element::kFloat32, m, n, k, 0, 1};
  report("gemm " + shape + " e4m3, added", flop, 0, [&] { GPU(gemm(added, gpu::stream())); });
  added.x = x.get(), added.weight = w.get(), added.type = WeightType::kBFloat16;
  report("gemm " + shape + " bf16, added", flop, 0, [&] { GPU(gemm(added, gpu::stream())); });
  static const cuda::Device device(gpu::library(), 0);
  static const std::unique_ptr<cuda::Blas> blas = cuda::Blas::open(device);
  if (!blas) return;
  const auto by_blas = [&](const char* what, const cuda::Blas::Product& p) {
    if (!blas->multiply(p)) return void(std::printf("%s: no kernel %s\n", blas->name().c_str(), what));
    report("cuBLASLt " + shape + " " + what, flop, 0, [&] { blas->multiply(p); }, device.stream());
  };
  by_blas("e4m3", {cx.get(), cw.get(), nullptr, out.get(), m, n, k, false, true});
  by_blas("e4m3, added", {cx.get(), cw.get(), nullptr, sum.get(), m, n, k, true, true});
  by_blas("bf16, added", {x.get(), w.get(), nullptr, sum.get(), m, n, k, true});
}

// Bytes are those that must be read and written.
void bench_rows(int64_t rows, int64_t hidden, int64_t ffn) {
  const auto elements = static_cast<double>(rows * hidden), wide = static_cast<double>(rows * ffn);
  const Random narrow(static_cast<size_t>(2 * rows * hidden)), gate(static_cast<size_t>(rows * ffn)), up(static_cast<size_t>(rows * ffn));
  const gpu::Memory<float> weight(std::vector<float>(static_cast<size_t>(hidden), 1.0f)), sum(std::vector<float>(static_cast<size_t>(rows * hidden), 0.5f));
  const gpu::Memory<uint8_t> out(static_cast<size_t>(2 * rows * ffn));
  const std::string at = format(" of %d rows", int(rows));
  for (const int32_t coded : {0, 1})
    report((coded ? "rms_norm to e4m3" : "rms_norm") + at, 0, elements * (coded ? 5 : 6), [&] { GPU(rms_norm({sum.get(), Element::kFloat32, weight.get(), out.get(), rows, hidden, 1e-5f, coded}, gpu::stream())); });
  report("quantize_rows" + at, 0, elements * 3, [&] { GPU(quantize_rows({narrow.get(), out.get(), rows, hidden}, gpu::stream())); });
  report("gate_mul" + at, 0, wide * 6, [&] { GPU(gate_mul({gate.get(), up.get(), rows * ffn}, gpu::stream())); });
  report("gate_mul to e4m3" + at, 0, wide * 5, [&] { GPU(gate_mul_quantize({gate.get(), up.get(), out.get(), rows, ffn}, gpu::stream())); });
  report("add" + at, 0, elements * 10, [&] { GPU(add({sum.get(), narrow.get(), rows * hidden}, gpu::stream())); });
}

// What gated attention adds to a layer.
void bench_gated_heads(int64_t tokens, int64_t heads, int64_t d) {
  const auto elements = static_cast<double>(tokens * heads * d);
  const Random x(static_cast<size_t>(2 * tokens * heads * d));
  const gpu::Memory<uint16_t> first(static_cast<size_t>(tokens * heads * d)), last(static_cast<size_t>(tokens * heads * d));
  const std::string shape = format(" T %d heads %d d %d", int(tokens), int(heads), int(d));
  report("split_heads" + shape, 0, elements * 8, [&] { GPU(split_heads({x.get(), first.get(), last.get(), tokens, heads, d}, gpu::stream())); });
  report("sigmoid_mul" + shape, 0, elements * 6, [&] { GPU(sigmoid_mul({first.get(), last.get(), tokens * heads * d}, gpu::stream())); });
}

void bench_rope_append(int64_t tokens, int64_t heads, int64_t kv_heads, int64_t d, int64_t half) {
  const int64_t pages = tokens / kernels::kPageTokens, page = kernels::page_elements(1, kv_heads, d, true);
  const Random q(static_cast<size_t>(tokens * heads * d)), k(static_cast<size_t>(tokens * kv_heads * d)), v(static_cast<size_t>(tokens * kv_heads * d));
  const gpu::Memory<uint16_t> storage(static_cast<size_t>(pages * page));
  std::vector<void*> pointers;
  for (int64_t i = 0; i < pages; ++i) pointers.push_back(storage.get() + i * page);
  const gpu::Memory<void*> table(pointers);
  const gpu::Memory<double> frequencies(std::vector<double>(static_cast<size_t>(half), 0.01));
  const gpu::Memory<float> cosine(static_cast<size_t>(tokens * half)), sine(static_cast<size_t>(tokens * half));
  GPU(rope_table({frequencies.get(), cosine.get(), sine.get(), tokens, half, 0, 1}, gpu::stream()));
  const double bytes = static_cast<double>(tokens * (8 * half * heads + 8 * d * kv_heads));
  for (const int64_t layers : {0, 1})
    report(format("rope_append of %d tokens, %d of %d%s", int(tokens), int(2 * half), int(d), layers ? ", and means" : ""), 0, bytes, [&] {
      GPU(rope_append({q.get(), q.get(), k.get(), v.get(), cosine.get(), sine.get(), {table.get(), kv_heads, d, 0, layers}, tokens, heads, d, half, 0, 0}, gpu::stream()));
    });
}

// Dense prefill over e4m3 pages: as codes, and over copies in bf16, which have to be made first.
void bench_attention_e4m3(int64_t tokens, int64_t heads, int64_t kv_heads, int64_t d) {
  const int64_t pages = tokens / kernels::kPageTokens, page = kernels::page_bytes(kernels::PageFormat::kE4M3, 1, kv_heads, d, false), wide_page = kernels::page_elements(1, kv_heads, d, false);
  const Random q(static_cast<size_t>(tokens * heads * d)), k(static_cast<size_t>(tokens * kv_heads * d)), v(static_cast<size_t>(tokens * kv_heads * d));
  const gpu::Memory<uint8_t> storage(static_cast<size_t>(pages * page));
  const gpu::Memory<uint16_t> wide(static_cast<size_t>(pages * wide_page)), out(static_cast<size_t>(tokens * heads * d));
  std::vector<void*> pointers, wide_pointers;
  for (int64_t i = 0; i < pages; ++i) pointers.push_back(storage.get() + i * page), wide_pointers.push_back(wide.get() + i * wide_page);
  const gpu::Memory<void*> table(pointers), wide_table(wide_pointers);
  const gpu::Memory<float> angles(std::vector<float>(static_cast<size_t>(tokens * d / 2), 0.7f));
  const kernels::PagedKv kv{table.get(), kv_heads, d, 0, 0, kernels::PageFormat::kE4M3};
  const auto moved = static_cast<double>(tokens * kv_heads * d);
  report(format("rope_append of %d tokens to e4m3", int(tokens)), 0, static_cast<double>(tokens * heads * d) * 4 + moved * 6, [&] {
    GPU(rope_append({q.get(), q.get(), k.get(), v.get(), angles.get(), angles.get(), kv, tokens, heads, d, d / 2, 0, 0}, gpu::stream()));
  });
  report(format("expand_pages of %d tokens in e4m3", int(tokens)), 0, moved * 6, [&] { GPU(expand_pages({kv, wide_table.get(), pages}, gpu::stream())); });
  kernels::AttentionArgs args{q.get(), out.get(), {wide_table.get(), kv_heads, d, 0}, tokens, heads, 0, gpu::properties().multiprocessors, nullptr};
  const double flop = 2 * static_cast<double>(tokens) * static_cast<double>(tokens + 1) * static_cast<double>(heads * d);
  const std::string shape = format("attention T %d heads %d/%d d %d over ", int(tokens), int(heads), int(kv_heads), int(d));
  report(shape + "copies", flop, 0, [&] { GPU(attention(args, gpu::stream())); });
  args.kv = kv;
  if (gpu::library().attention_multiplies_e4m3(args)) report(shape + "e4m3", flop, 0, [&] { GPU(attention(args, gpu::stream())); });
  args.tokens = 1;
  args.first_position = tokens - 1;
  const gpu::Memory<float> workspace = gpu::attention_workspace(args);
  args.workspace = workspace.get();
  report_decode(format("attention T 1 first %d heads %d/%d d %d over e4m3", int(tokens) - 1, int(heads), int(kv_heads), int(d)), moved * 2, [&] { GPU(attention(args, gpu::stream())); });
}

// Pages that only few queries read as they are.
void bench_codes(kernels::PageFormat format_of_pages, const char* name, int64_t tokens, int64_t heads, int64_t kv_heads, int64_t d) {
  const int64_t pages = tokens / kernels::kPageTokens, page = kernels::page_bytes(format_of_pages, 1, kv_heads, d, false), wide_page = kernels::page_elements(1, kv_heads, d, false);
  const Random q(static_cast<size_t>(tokens * heads * d)), k(static_cast<size_t>(tokens * kv_heads * d)), v(static_cast<size_t>(tokens * kv_heads * d));
  const gpu::Memory<uint8_t> storage(static_cast<size_t>(pages * page));
  const gpu::Memory<uint16_t> wide(static_cast<size_t>(pages * wide_page)), out(static_cast<size_t>(heads * d));
  std::vector<void*> pointers, wide_pointers;
  for (int64_t i = 0; i < pages; ++i) pointers.push_back(storage.get() + i * page), wide_pointers.push_back(wide.get() + i * wide_page);
  const gpu::Memory<void*> table(pointers), wide_table(wide_pointers);
  const gpu::Memory<float> angles(std::vector<float>(static_cast<size_t>(tokens * d / 2), 0.7f));
  const kernels::PagedKv kv{table.get(), kv_heads, d, 0, 0, format_of_pages};
  const auto read = static_cast<double>(pages * page), moved = static_cast<double>(tokens * kv_heads * d) * 4;
  const auto append = [&](int64_t count, int64_t first) { GPU(rope_append({q.get(), q.get(), k.get(), v.get(), angles.get(), angles.get(), kv, count, heads, d, d / 2, first, 0}, gpu::stream())); };
  append(tokens, 0);  // whatever is asked for
  const std::string shape = format(" heads %d/%d d %d", int(heads), int(kv_heads), int(d));
  report(format("rope_append of %d tokens to %s", int(tokens), name) + shape, 0, static_cast<double>(tokens * heads * d) * 4 + moved + read, [&] { append(tokens, 0); });
  report(format("rope_append of a token to %s", name) + shape, 0, 0, [&] { append(1, tokens - 1); });
  report(format("expand_pages of %d tokens in %s", int(tokens), name) + shape, 0, moved + read, [&] { GPU(expand_pages({kv, wide_table.get(), pages}, gpu::stream())); });
  kernels::AttentionArgs args{q.get(), out.get(), kv, 1, heads, tokens - 1, gpu::properties().multiprocessors, nullptr};
  const gpu::Memory<float> workspace = gpu::attention_workspace(args);
  args.workspace = workspace.get();
  report_decode(format("attention T 1 first %d", int(tokens) - 1) + shape + " over " + name, read, [&] { GPU(attention(args, gpu::stream())); });
}

void bench_matvec(const char* name, WeightType type, double bits, int64_t m, int64_t n, int64_t k, int32_t architecture = 0) {
  // As many copies of the weight as do not stay in the cache.
  const double bytes = static_cast<double>(type == WeightType::kE4M3 ? kernels::e4m3_bytes(n, k) : n * k) * bits / 8;
  const int64_t stride = (static_cast<int64_t>(bytes) + 255) / 256 * 256;
  const auto copies = std::max<int64_t>(8, (int64_t{1} << 30) / stride);
  const Random x(static_cast<size_t>(m * k)), w(static_cast<size_t>(stride * copies / 2));
  const gpu::Memory<uint16_t> out(static_cast<size_t>(m * n));
  report(format("matvec %d x %d %s, %d of x%s, %d weights", int(n), int(k), name, int(m), architecture ? ", sm_80" : "", int(copies)), 0, static_cast<double>(copies) * bytes, [&] {
    for (int64_t copy = 0; copy < copies; ++copy)
      GPU(matvec({x.get(), reinterpret_cast<char*>(w.get()) + copy * stride, type, nullptr, out.get(), Element::kBFloat16, m, n, k, architecture}, gpu::stream()));
  });
}

// `span`: not 0 where a token sees so many up to itself, with a sink for each head besides.
void bench_attention(int64_t tokens, int64_t first, int64_t heads, int64_t kv_heads, int64_t d, int64_t span = 0) {
  const int64_t length = first + tokens, pages = (length + kernels::kPageTokens - 1) / kernels::kPageTokens, page = kv_heads * 2 * kernels::kPageTokens * d;
  const Random q(static_cast<size_t>(tokens * heads * d)), kv(static_cast<size_t>(pages * page));
  const gpu::Memory<uint16_t> out(static_cast<size_t>(tokens * heads * d));
  std::vector<void*> pointers;
  for (int64_t i = 0; i < pages; ++i) pointers.push_back(kv.get() + i * page);
  const gpu::Memory<void*> table(pointers);
  kernels::AttentionArgs args{q.get(), out.get(), {table.get(), kv_heads, d, 0}, tokens, heads, first, gpu::properties().multiprocessors, nullptr};
  const gpu::Memory<float> sinks(gpu::some_sinks(heads));
  args.span = span;
  if (span > 0) args.sinks = sinks.get();
  const gpu::Memory<float> workspace = gpu::attention_workspace(args);
  args.workspace = workspace.get();
  const double seen = static_cast<double>(first) + (static_cast<double>(tokens) + 1) / 2, scores = static_cast<double>(tokens) * (span > 0 ? std::min(seen, static_cast<double>(span)) : seen);
  std::string name = format("attention T %d first %d heads %d/%d d %d", int(tokens), int(first), int(heads), int(kv_heads), int(d));
  if (span > 0) name += format(" span %d, sinks", int(span));
  const auto launch = [&] { GPU(attention(args, gpu::stream())); };
  if (tokens == 1) report_decode(name, static_cast<double>((span > 0 ? std::min(length, span) : length) * kv_heads * d) * 4, launch);
  else report(name, 4 * scores * static_cast<double>(heads * d), 0, launch);
  if (tokens > 128 || tokens == 1) return;
  // Where these tokens look: both walks multiply the keys alone.
  kernels::FocusArgs look{q.get(), args.kv, tokens, heads, first, nullptr, first, nullptr};
  const gpu::Memory<float> focus(std::vector<float>(static_cast<size_t>(first))), sums(static_cast<size_t>(kernels::focus_workspace_floats(look)));
  look.focus = focus.get();
  look.workspace = sums.get();
  report(format("focus T %d first %d heads %d/%d d %d", int(tokens), int(first), int(heads), int(kv_heads), int(d)), 4 * scores * static_cast<double>(heads * d), 0, [&] { GPU(focus(look, gpu::stream())); });
}

// Layers of Qwen3-Next one after the other, whose states do not stay in the cache, found by pointers as in a recording. Bytes are the inputs',
// the result's and the states', FLOP those of the recurrence. `hidden`: not 0 where a token's alpha and beta are made of so many values.
void bench_delta_net(int64_t tokens, int64_t layers, int64_t hidden = 0) {
  const int64_t key_heads = 16, value_heads = 32, d = 128, channels = kernels::delta_channels(key_heads, value_heads, d), state = kernels::delta_state_bytes(key_heads, value_heads, d);
  std::mt19937_64 random(6);
  const Random qkv(static_cast<size_t>(tokens * channels)), z(static_cast<size_t>(tokens * value_heads * d)), gates(static_cast<size_t>(tokens * value_heads));
  const gpu::Memory<float> conv(gpu::random_float(static_cast<size_t>(channels * 4), random, 0.5f)), ones(std::vector<float>(static_cast<size_t>(d), 1.0f)), decay(std::vector<float>(static_cast<size_t>(value_heads), -0.3f));
  const gpu::Memory<uint16_t> out(static_cast<size_t>(tokens * value_heads * d));
  const gpu::Memory<uint8_t> before(std::vector<uint8_t>(static_cast<size_t>(state * layers))), after(before.bytes()), workspace(static_cast<size_t>(kernels::delta_net_workspace_bytes(tokens, key_heads, value_heads, d)));
  const gpu::Memory<void*> states(std::vector<void*>{before.get(), after.get()});
  kernels::DeltaNetArgs args{qkv.get(), z.get(), gates.get(), gates.get(), conv.get(), decay.get(), ones.get(), ones.get(), out.get(), nullptr, nullptr, states.get(), 0, workspace.get(), tokens, key_heads, value_heads, d, 1e-6f, 1};
  const Random input(static_cast<size_t>(hidden + 8)), alpha(static_cast<size_t>(layers * value_heads * hidden + 8)), beta(static_cast<size_t>(layers * value_heads * hidden + 8));
  if (hidden > 0) args.input = input.get(), args.k = hidden;
  const double bytes = static_cast<double>(tokens * (channels + 2 * value_heads * d) * 2 + 2 * state + 4 * value_heads * hidden), flop = 6 * static_cast<double>(tokens * value_heads) * static_cast<double>(d * d);
  report(format("delta_net T %d heads %d/%d d %d, %d layers%s", int(tokens), int(key_heads), int(value_heads), int(d), int(layers), hidden > 0 ? ", with alpha and beta" : ""), static_cast<double>(layers) * flop, static_cast<double>(layers) * bytes, [&] {
    for (int64_t layer = 0; layer < layers; ++layer) {
      args.state_offset = layer * state;
      args.alpha_weight = alpha.get() + layer * value_heads * hidden, args.beta_weight = beta.get() + layer * value_heads * hidden;
      GPU(delta_net(args, gpu::stream()));
    }
  });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) only = argv[1];
  try {
    std::printf("%s\n", gpu::properties().name);
    bench_copy();
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{4096, 4096}, {1024, 4096}, {14336, 4096}, {4096, 14336}}) bench_linear(16384, n, k);
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{4096, 4096}, {1024, 4096}, {14336, 4096}, {4096, 14336}}) bench_linear_e4m3(16384, n, k);
    bench_rows(16384, 4096, 14336);
    bench_rope_append(16384, 32, 8, 128, 64);
    bench_rope_append(16384, 24, 4, 256, 32);
    bench_gated_heads(16384, 24, 256);
    bench_linear(512, 4096, 4096);
    bench_linear(1024, 1536, 576);
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{14336, 4096}, {4096, 14336}, {4096, 4096}}) {
      for (const auto& [name, type, bits] : {std::tuple{"bf16", WeightType::kBFloat16, 16.0}, {"e4m3", WeightType::kE4M3, 8.0}, {"Q8_0", WeightType::kQ8_0, 8.5}, {"Q5_0", WeightType::kQ5_0, 5.5}, {"Q4_0", WeightType::kQ4_0, 4.5},
                                             {"Q3_K", WeightType::kQ3_K, 3.4375}, {"Q4_K", WeightType::kQ4_K, 4.5}, {"Q5_K", WeightType::kQ5_K, 5.5}, {"Q6_K", WeightType::kQ6_K, 6.5625}, {"IQ4_XS", WeightType::kIQ4_XS, 4.25}, {"MXFP4", WeightType::kMXFP4, 4.25}}) {
        for (const int64_t m : {1, 2, 8}) bench_matvec(name, type, bits, m, n, k);
        bench_matvec(name, type, bits, 1, n, k, 80);
      }
    }
    bench_attention(32768, 0, 32, 8, 128);
    bench_attention(131072, 0, 32, 8, 128);
    for (const int64_t tokens : {32768, 131072}) bench_attention_e4m3(tokens, 32, 8, 128);
    bench_attention_e4m3(32768, 9, 3, 64);
    bench_attention(4096, 131072 - 4096, 32, 8, 128);
    bench_attention(4096, 61440 - 4096, 9, 3, 64);
    for (const int64_t length : {8192, 131072, 524288}) bench_attention(1, length - 1, 32, 8, 128);
    bench_attention(32, 60000, 9, 3, 64);
    bench_attention(128, 131072 - 128, 32, 8, 128);
    bench_attention(512, 8192, 9, 3, 64);
    bench_attention(1, 61440, 9, 3, 64);
    // gpt-oss: layers that see everything, and layers that see 128 tokens.
    for (const int64_t span : {0, 128}) {
      bench_attention(16384, 131072 - 16384, 64, 8, 64, span);
      bench_attention(1, 131071, 64, 8, 64, span);
    }
    bench_attention(32768, 0, 24, 4, 256);
    bench_attention(4096, 131072 - 4096, 16, 2, 256);
    for (const int64_t length : {8192, 131072}) bench_attention(1, length - 1, 24, 4, 256);
    bench_attention(1, 131071, 16, 2, 256);
    bench_attention_e4m3(32768, 24, 4, 256);
    for (const auto& [pages_of, name] : {std::pair{kernels::PageFormat::kQ8, "q8"}, {kernels::PageFormat::kQ4, "q4"}}) {
      for (const int64_t tokens : {8192, 131072}) bench_codes(pages_of, name, tokens, 32, 8, 128);
      bench_codes(pages_of, name, 131072, 9, 3, 64);
      bench_codes(pages_of, name, 131072, 24, 4, 256);
    }
    bench_delta_net(1, 36, 4096);
    for (const int64_t tokens : {1, 2, 16, 17, 64, 512, 2048, 16384}) bench_delta_net(tokens, tokens < 512 ? 36 : 1);
    return 0;
  } catch (const check::Skip& skip) {
    std::printf("skipped: %s\n", skip.why.c_str());
    return 77;
  }
}
