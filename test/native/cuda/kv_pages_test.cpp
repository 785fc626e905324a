// Slabs of KV pages: taken when first written, and kept.
#include "cuda/kv_pages.h"

#include "check.h"
#include "cuda/library.h"

using namespace longview;

namespace {

const kernels::Library& library() {
  const cuda::Loaded& loaded = cuda::load_library();
  if (!loaded.library) SKIP("no CUDA device: " + loaded.why);
  return *loaded.library;
}

}  // namespace

TEST("heads in the pages are as wide as those that attention has kernels for") {
  library();  // skips as the others do
  for (const auto& [own, wide] : {std::pair{1, 64}, std::pair{64, 64}, std::pair{80, 128}, std::pair{96, 128}, std::pair{128, 128}, std::pair{160, 256}, std::pair{256, 256}}) CHECK(cuda::page_dim(own) == wide);
}

TEST("pages are taken when they are asked for, hold zeros, never move, and go with their storage") {
  const cuda::Device device(library(), 0);
  const int64_t free = device.free_memory();
  {
    cuda::CudaKvStorage storage(device, KvShape{32, 8, 128, KvFormat::kBFloat16}, 4000);
    CHECK(storage.pages() == 4000 && storage.page_bytes() == 32 * 8 * 2 * 128 * 128 * 2);
    CHECK(device.free_memory() == free);
    void* first = storage.page(0);
    CHECK(static_cast<char*>(storage.page(1)) - static_cast<char*>(first) == storage.page_bytes());
    for (int32_t page = 0; page < 64; ++page) storage.page(page);
    CHECK(device.free_memory() <= free - 64 * storage.page_bytes());
    std::vector<uint8_t> bytes(static_cast<size_t>(storage.page_bytes()), 1);
    device.check(device.library().copy_to_host(bytes.data(), storage.page(63), bytes.size(), device.stream()), "reading");
    device.check(device.library().synchronize(device.stream()), "reading");
    CHECK(bytes == std::vector<uint8_t>(bytes.size(), 0));
    CHECK(storage.page(0) == first);
  }
  CHECK(device.free_memory() == free);
}

TEST_MAIN()
