// Kernels on the GPU at the sizes of an 8B model, timed by events: build/native/cuda_bench [name]. A line a kernel: median
// milliseconds of ten runs after two, and TFLOP/s of useful work or GB/s of bytes that must be read.
#include <algorithm>
#include <functional>

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

void bench_matvec(const char* name, WeightType type, double bits, int64_t n, int64_t k) {
  // Eight copies of the weight, so that it does not stay in the cache.
  const double bytes = static_cast<double>(n * k) * bits / 8;
  const int64_t stride = (static_cast<int64_t>(bytes) + 255) / 256 * 256;
  const Random x(static_cast<size_t>(k)), w(static_cast<size_t>(stride * 8 / 2));
  const gpu::Memory<uint16_t> out(static_cast<size_t>(n));
  report(format("matvec %d x %d %s, 8 weights", int(n), int(k), name), 0, 8 * bytes, [&] {
    for (int64_t copy = 0; copy < 8; ++copy)
      GPU(matvec({x.get(), reinterpret_cast<char*>(w.get()) + copy * stride, type, nullptr, out.get(), Element::kBFloat16, 1, n, k}, gpu::stream()));
  });
}

void bench_attention(int64_t tokens, int64_t first, int64_t heads, int64_t kv_heads, int64_t d) {
  const int64_t length = first + tokens, pages = (length + kernels::kPageTokens - 1) / kernels::kPageTokens, page = kv_heads * 2 * kernels::kPageTokens * d;
  const Random q(static_cast<size_t>(tokens * heads * d)), kv(static_cast<size_t>(pages * page));
  const gpu::Memory<uint16_t> out(static_cast<size_t>(tokens * heads * d));
  std::vector<void*> pointers;
  for (int64_t i = 0; i < pages; ++i) pointers.push_back(kv.get() + i * page);
  const gpu::Memory<void*> table(pointers);
  kernels::AttentionArgs args{q.get(), out.get(), {table.get(), kv_heads, d, 0}, tokens, heads, first, gpu::properties().multiprocessors, nullptr};
  const gpu::Memory<float> workspace(static_cast<size_t>(gpu::library().attention_workspace_floats(args) + 1));
  args.workspace = workspace.get();
  const double scores = static_cast<double>(tokens) * (static_cast<double>(first) + (static_cast<double>(tokens) + 1) / 2);
  const double bytes = tokens == 1 ? static_cast<double>(length * kv_heads * d) * 4 : 0;
  report(format("attention T %d first %d heads %d/%d d %d", int(tokens), int(first), int(heads), int(kv_heads), int(d)), tokens == 1 ? 0 : 4 * scores * static_cast<double>(heads * d), bytes, [&] { GPU(attention(args, gpu::stream())); });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) only = argv[1];
  try {
    std::printf("%s\n", gpu::properties().name);
    bench_copy();
    for (const auto [n, k] : {std::pair<int64_t, int64_t>{4096, 4096}, {1024, 4096}, {14336, 4096}, {4096, 14336}}) bench_linear(16384, n, k);
    bench_linear(512, 4096, 4096);
    bench_linear(1024, 1536, 576);
    for (const auto [n, k] : {std::pair<int64_t, int64_t>{14336, 4096}, {4096, 14336}, {4096, 4096}}) {
      bench_matvec("bf16", WeightType::kBFloat16, 16, n, k);
      bench_matvec("Q8_0", WeightType::kQ8_0, 8.5, n, k);
      bench_matvec("Q4_K", WeightType::kQ4_K, 4.5, n, k);
      bench_matvec("Q5_0", WeightType::kQ5_0, 5.5, n, k);
      bench_matvec("Q6_K", WeightType::kQ6_K, 6.5625, n, k);
    }
    bench_attention(32768, 0, 32, 8, 128);
    bench_attention(131072, 0, 32, 8, 128);
    bench_attention(4096, 131072 - 4096, 32, 8, 128);
    bench_attention(4096, 61440 - 4096, 9, 3, 64);
    bench_attention(1, 131071, 32, 8, 128);
    bench_attention(32, 60000, 9, 3, 64);
    bench_attention(512, 8192, 9, 3, 64);
    bench_attention(1, 61440, 9, 3, 64);
    return 0;
  } catch (const check::Skip& skip) {
    std::printf("skipped: %s\n", skip.why.c_str());
    return 77;
  }
}
