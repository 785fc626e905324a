// Sparse prefill attention on the GPU beside dense, one layer of an 8B model (32/8 heads, d 128, bf16) unless said:
// build/native/sparse_cuda_bench [fp8] [tokens [index]]; with "index" that is all that is measured, with "fp8" K and V are kept in 8-bit
// floats. Random data; medians by events. The
// index chooses by a share that hardly a page has, and by mass, until 97 % are left over. The attention runs on pages drawn at random
// for the density that a line names, so that the work is known: every tile for itself, or 16 neighbouring tiles (512 positions)
// alike. `pages` counts the FLOP of visited pages alone, `all` those of the means too. Density: visited pages of those that dense
// attention visits.
#include <algorithm>
#include <cstring>
#include <functional>
#include <optional>

#include "base/error.h"
#include "kernels/gpu.h"

using namespace longview;
using kernels::HeadGroup;
using kernels::kPageTokens;

namespace {

double median_ms(int runs, const std::function<void()>& launch) {
  kernels::Event begin = nullptr, end = nullptr;
  GPU(create_event(&begin));
  GPU(create_event(&end));
  std::vector<float> times;
  for (int run = 0; run < runs + 1; ++run) {
    GPU(record_event(begin, gpu::stream()));
    launch();
    GPU(record_event(end, gpu::stream()));
    float ms = 0;
    GPU(elapsed_ms(begin, end, &ms));
    if (run >= 1) times.push_back(ms);
  }
  GPU(destroy_event(begin));
  GPU(destroy_event(end));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// Random bf16 without a host copy of its size: some random megabytes, repeated.
class Random {
 public:
  explicit Random(int64_t count) : memory_(static_cast<size_t>(count)) {
    static const gpu::Memory<uint16_t> seed([] {
      std::mt19937_64 random(5);
      return gpu::random_bf16((size_t{1} << 22) + 8 * 13, random);  // no divisor of a page
    }());
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

// Pages of one layer with means, by rope_append where they keep codes.
class Pages {
 public:
  Pages(kernels::PageFormat format, int64_t count, int64_t kv_heads, int64_t d) : page_(kernels::page_bytes(format, 1, kv_heads, d, true)), storage_(count * page_ / 2) {
    std::vector<void*> pointers;
    for (int64_t i = 0; i < count; ++i) pointers.push_back(reinterpret_cast<char*>(storage_.get()) + i * page_);
    table_.emplace(pointers);
    kv_ = {table_->get(), kv_heads, d, 0, 1, format};
    if (format == kernels::PageFormat::kBFloat16) return;
    const int64_t tokens = count * kPageTokens;
    const Random k(tokens * kv_heads * d), v(tokens * kv_heads * d);
    const gpu::Memory<uint16_t> rotated(static_cast<size_t>(tokens * kv_heads * d));
    const gpu::Memory<float> angles(std::vector<float>(static_cast<size_t>(tokens * d / 2), 0.7f));
    GPU(rope_append({k.get(), rotated.get(), k.get(), v.get(), angles.get(), angles.get(), kv_, tokens, kv_heads, d, d / 2, 0, 0}, gpu::stream()));
    GPU(synchronize(gpu::stream()));
  }
  const kernels::PagedKv& kv() const { return kv_; }
  int64_t page_bytes() const { return page_; }

 private:
  int64_t page_;
  Random storage_;
  std::optional<gpu::Memory<void*>> table_;
  kernels::PagedKv kv_{};
};

void bench(kernels::PageFormat format, int64_t tokens, int64_t first, int64_t heads, int64_t kv_heads, int64_t d, const std::vector<double>& densities, bool index_alone) {
  const int64_t length = first + tokens, pages = length / kPageTokens, group = heads / kv_heads;
  const Random q(tokens * heads * d);
  const Pages kept(format, pages, kv_heads, d);
  const gpu::Memory<uint16_t> out(static_cast<size_t>(tokens * heads * d));
  const kernels::PagedKv& paged = kept.kv();
  const int32_t multiprocessors = gpu::properties().multiprocessors;
  const int runs = tokens * length > int64_t{1} << 34 ? 3 : 9;

  kernels::AttentionArgs dense{q.get(), out.get(), paged, tokens, heads, first, multiprocessors, nullptr};
  const gpu::Memory<float> partial = gpu::attention_workspace(dense);
  dense.workspace = partial.get();
  const double scores = static_cast<double>(tokens) * (static_cast<double>(first) + (static_cast<double>(tokens) + 1) / 2), dense_flop = 4 * scores * static_cast<double>(heads * d);
  const double dense_ms = index_alone ? NAN : median_ms(runs, [&] { GPU(attention(dense, gpu::stream())); });
  std::printf("%7d tokens behind %7d, heads %d/%d, d %3d: dense %9.3f ms %6.1f TFLOP/s\n", int(tokens), int(first), int(heads), int(kv_heads), int(d), dense_ms, dense_flop / dense_ms / 1e9);

  std::vector<HeadGroup> groups;
  const int64_t tiles_each = kernels::sparse_tiles(tokens, group);
  for (int64_t g = 0; g < kv_heads; ++g)
    groups.push_back({static_cast<int32_t>(g * group), static_cast<int32_t>(group), static_cast<int32_t>(g), static_cast<int32_t>(g * tiles_each), 2 * kPageTokens, 4 * kPageTokens, kernels::PageRule::kShare, 0.01f, 0, 1, 0, 0, 0});
  const gpu::Memory<HeadGroup> device_groups(groups);
  for (HeadGroup& plan : groups) plan.rule = kernels::PageRule::kMass, plan.threshold = 0.97f;
  const gpu::Memory<HeadGroup> groups_by_mass(groups);
  const gpu::Memory<kernels::HeadCounters> counters(std::vector<kernels::HeadCounters>(static_cast<size_t>(heads)));
  kernels::SparseArgs args{q.get(), out.get(), paged, tokens, heads, first, device_groups.get(), kv_heads, kv_heads * tiles_each, counters.get(), nullptr, multiprocessors};
  const kernels::SparseLayout layout = kernels::sparse_layout(args);
  const gpu::Memory<uint8_t> workspace(static_cast<size_t>(layout.bytes));
  args.workspace = workspace.get();
  args.groups = groups_by_mass.get();
  const double by_mass_ms = median_ms(runs, [&] { GPU(sparse_index(args, gpu::stream())); });
  args.groups = device_groups.get();
  const double index_ms = median_ms(runs, [&] { GPU(sparse_index(args, gpu::stream())); });
  const double probe_ms = median_ms(runs, [&] { GPU(sparse_coverage(args, gpu::stream())); });
  const double stand_in_ms = median_ms(runs, [&] { GPU(sparse_stand_ins(args, gpu::stream())); });
  std::printf("  index by share %.3f ms, by mass %.3f ms, 64 probes %.3f ms, stand-ins %.3f ms, workspace %.1f MiB\n", index_ms, by_mass_ms, probe_ms, stand_in_ms, static_cast<double>(layout.bytes) / (1 << 20));
  if (index_alone) return;

  constexpr int64_t kNeighbours = 16;
  for (const double density : densities)
    for (const bool alike : {false, true}) {
      if (density >= 1 && alike) continue;
      std::vector<uint32_t> bits(static_cast<size_t>(args.tiles * layout.words), 0);
      std::vector<float> draws(static_cast<size_t>(pages));
      std::mt19937 random(9);
      double visited = 0, means = 0, all = 0;
      for (int64_t tile = 0; tile < args.tiles; ++tile) {
        if (!alike || tile % kNeighbours == 0)
          for (float& draw : draws) draw = static_cast<float>(random() >> 8) / (1 << 24);
        const int64_t first_row = (tiles_each - 1 - tile % tiles_each) * kernels::kSparseTileRows, position = first + first_row / group;
        const int64_t last = first + std::min(first_row + kernels::kSparseTileRows - 1, tokens * group - 1) / group, seen = last / kPageTokens + 1;
        const int64_t begin = 2, end = std::max<int64_t>(begin, (position + 1 - std::min(4 * kPageTokens, position + 1)) / kPageTokens);
        // As many candidates as bring the tile to the density.
        const double wanted = std::clamp(density * static_cast<double>(seen) - static_cast<double>(seen - (end - begin)), 0.0, static_cast<double>(end - begin));
        for (int64_t p = 0; p < seen; ++p) {
          if (p >= begin && p < end && draws[static_cast<size_t>(p)] * static_cast<double>(end - begin) >= wanted) continue;
          bits[static_cast<size_t>(tile * layout.words + p / 32)] |= 1u << p % 32;
          ++visited;
        }
        all += static_cast<double>(seen);
        if (end > begin) means += static_cast<double>((end + 127) / 128 - begin / 128);
      }
      GPU(copy_to_device(workspace.get() + layout.bits, bits.data(), bits.size() * 4, gpu::stream()));
      GPU(synchronize(gpu::stream()));
      const double block = 4.0 * 128 * 128 * static_cast<double>(d), ms = median_ms(runs, [&] { GPU(sparse_attention(args, gpu::stream())); });
      std::printf("  density %6.2f %%%s: %9.3f ms, pages %6.1f TFLOP/s (%.3g FLOP), all %6.1f TFLOP/s; from memory at least %.3g bytes; with index %.1f times dense\n", 100 * visited / all,
                  alike ? ", neighbours alike" : "                  ", ms, visited * block / ms / 1e9, visited * block, (visited + means) * block / ms / 1e9,
                  static_cast<double>(pages * kept.page_bytes() + 2 * tokens * heads * d * 2), dense_ms / (ms + index_ms));
      std::fflush(stdout);
    }
}

}  // namespace

int main(int argc, char** argv) {
  const bool fp8 = argc > 1 && std::strcmp(argv[1], "fp8") == 0;
  argc -= fp8, argv += fp8;
  const kernels::PageFormat format = fp8 ? kernels::PageFormat::kE4M3 : kernels::PageFormat::kBFloat16;
  const int64_t only = argc > 1 ? std::atoll(argv[1]) : 0;
  const bool index_alone = argc > 2 && std::strcmp(argv[2], "index") == 0;
  try {
    std::printf("%s\n", gpu::properties().name);
    const auto run = [&](int64_t tokens, int64_t length, int64_t heads, int64_t kv_heads, int64_t d, const std::vector<double>& densities) {
      if (only == 0 || only == length) bench(format, tokens, length - tokens, heads, kv_heads, d, densities, index_alone);
    };
    run(32768, 32768, 32, 8, 128, {0.1, 0.2, 1});
    run(131072, 131072, 32, 8, 128, {0.02, 0.045, 0.1, 0.2});
    run(16384, 131072, 32, 8, 128, {0.045});
    run(4096, 131072, 32, 8, 128, {0.045});
    run(32768, 524288, 32, 8, 128, {0.013, 0.045});
    run(32768, 1048576, 32, 8, 128, {0.01, 0.02});
    run(32768, 65536, 9, 3, 64, {0.1, 0.2});
    if (!fp8) run(131072, 131072, 24, 4, 256, {0.02, 0.045, 0.1, 0.2});  // such pages are read as copies in bf16
    return 0;
  } catch (const check::Skip& skip) {
    std::printf("skipped: %s\n", skip.why.c_str());
    return 77;
  }
}
