// What the backend keeps between operations: after one that failed half-way, and for a KV state or a page that takes the place of another.
#include <algorithm>
#include <numeric>

#include "backend/backend.h"
#include "base/error.h"
#include "kernels/gpu.h"

using namespace longview;

namespace {

constexpr int64_t kHeads = 8, kKvHeads = 2, kDims = 128;

int until_full = -1;  // allocations that work before one does not; negative: all do

// Memory is NaN to begin with: what is read must have been written.
const kernels::Library& failing() {
  static const kernels::Library table = [] {
    kernels::Library t = gpu::library();
    t.allocate = [](void** pointer, size_t bytes) -> kernels::Status {
      if (until_full >= 0 && until_full-- == 0) return 2;  // cudaErrorMemoryAllocation
      if (const kernels::Status status = gpu::library().allocate(pointer, bytes)) return status;
      if (const kernels::Status status = gpu::library().fill(*pointer, 0xff, bytes, gpu::stream())) return status;
      return gpu::library().synchronize(gpu::stream());
    };
    return t;
  }();
  return table;
}

struct Layer {
  std::unique_ptr<Backend> backend = cuda::make_backend(failing(), {});
  KvShape shape;
  std::unique_ptr<DeviceRope> rope;
  std::mt19937_64 random{5};
  Activation q, k, v, out;

  Layer(KvFormat format, int64_t tokens) : shape{1, kKvHeads, kDims, format} {
    shape.mean_tokens = backend->sparse_block_tokens(shape);
    RopeConfig config;
    config.dims = kDims;
    config.inverse_frequencies.assign(kDims / 2, 0.5);
    rope = backend->upload_rope(config);
    q = any(tokens, kHeads * kDims);
    k = any(tokens, kKvHeads * kDims);
    v = any(tokens, kKvHeads * kDims);
    out = backend->allocate(tokens, kHeads * kDims);
  }
  void append(const KvPages& pages, int64_t tokens) {
    const Activation queries = any(tokens, kHeads * kDims);  // they are rotated in place
    backend->rope_and_append_kv(queries, backend->rows(k, 0, tokens), backend->rows(v, 0, tokens), *rope, shape, 0, pages, 0);
  }
  std::vector<std::byte> page(KvStorage& storage, int32_t number) const {
    std::vector<std::byte> bytes(static_cast<size_t>(storage.page_bytes()));
    backend->read_page(storage, number, bytes);
    return bytes;
  }

 private:
  Activation any(int64_t rows, int64_t cols) {
    const Activation x = backend->allocate(rows, cols);
    const std::vector<uint16_t> values = gpu::random_bf16(static_cast<size_t>(rows * cols), random);
    GPU(copy_to_device(x.data, values.data(), values.size() * 2, gpu::stream()));
    GPU(synchronize(gpu::stream()));
    return x;
  }
};

}  // namespace

TEST("a rotary table that was half-way when memory was full does not count") {
  Layer layer(KvFormat::kBFloat16, 100);
  const std::unique_ptr<KvStorage> storage = layer.backend->allocate_kv(layer.shape, 1);
  const std::vector<int32_t> slots = {0};
  const KvPages pages{storage.get(), slots};
  layer.append(pages, 8);
  const std::vector<std::byte> kept = layer.page(*storage, 0);
  until_full = 2;  // queries and cosines of more tokens have room, their sines have not
  CHECK_THROWS(layer.append(pages, 100), kOutOfMemory);
  until_full = -1;
  layer.append(pages, 8);
  CHECK(layer.page(*storage, 0) == kept);
}

TEST("a KV state that lies where another lay is written to its own pages") {
  Layer layer(KvFormat::kBFloat16, 100);
  const std::vector<int32_t> slots = {0};
  std::unique_ptr<KvStorage> storage = layer.backend->allocate_kv(layer.shape, 1);
  layer.append({storage.get(), slots}, 8);
  const std::vector<std::byte> kept = layer.page(*storage, 0);
  storage.reset();
  const gpu::Memory<std::byte> in_its_place(kept.size());  // so that the new one's pages lie elsewhere
  storage = layer.backend->allocate_kv(layer.shape, 1);
  layer.append({storage.get(), slots}, 8);
  CHECK(layer.page(*storage, 0) == kept);
}

TEST("heads of any width can be read sparsely") {
  const std::unique_ptr<Backend> backend = cuda::make_backend(gpu::library(), {});
  for (const int64_t d : {64, 96, 128, 160, 256}) CHECK(backend->sparse_block_tokens(KvShape{1, kKvHeads, d}) == kPageTokens);
}

TEST("a page that is handed on has nothing of the context before it, also where that was no number") {
  constexpr int64_t kTokens = 2200;  // enough for the kernels that multiply whole pages, the last of them ragged
  for (const KvFormat format : {KvFormat::kBFloat16, KvFormat::kQ8, KvFormat::kE4M3, KvFormat::kQ4}) {
    Layer layer(format, kTokens);
    if (format == KvFormat::kE4M3 && !layer.backend->why_not_e4m3_kv().empty()) continue;
    const std::unique_ptr<KvStorage> storage = layer.backend->allocate_kv(layer.shape, pages_of(kTokens) + 1);
    std::vector<int32_t> slots(static_cast<size_t>(pages_of(kTokens)));
    std::iota(slots.begin(), slots.end(), 0);
    for (const int32_t page : slots) layer.backend->write_page(*storage, page, std::vector<std::byte>(static_cast<size_t>(storage->page_bytes()), std::byte{0xff}));
    for (const int32_t page : slots) layer.backend->discard_page(*storage, page);
    layer.backend->discard_page(*storage, static_cast<int32_t>(slots.size()));  // one that was never written
    const KvPages pages{storage.get(), slots};
    layer.append(pages, kTokens);
    layer.backend->attention(layer.q, layer.shape, kHeads, {0}, pages, 0, layer.out);
    std::vector<float> row(static_cast<size_t>(layer.out.cols));
    int64_t undefined = 0;
    for (int64_t t = 0; t < kTokens; ++t) {
      layer.backend->read_row(layer.out, t, row);
      undefined += std::any_of(row.begin(), row.end(), [](float x) { return !std::isfinite(x); });
    }
    CHECK(undefined == 0);
  }
}

TEST_MAIN()
