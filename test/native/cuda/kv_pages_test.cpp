// Slabs of KV pages: taken when first written, kept while any page is in use, and what users of page() may remember.
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

TEST("a page that is discarded and taken again keeps its slab alive") {
  const cuda::Device device(library(), 0);
  cuda::CudaKvStorage storage(device, KvShape{2, 2, 64, KvFormat::kBFloat16}, 10000);
  CHECK(storage.page_bytes() == 2 * 2 * 2 * 64 * 128 * 2);
  void* first = storage.page(0);
  void* second = storage.page(1);
  CHECK(static_cast<char*>(second) - static_cast<char*>(first) == storage.page_bytes());
  const int64_t before = storage.generation();
  storage.discard(1);
  CHECK(storage.generation() != before);
  CHECK(storage.page(1) == second);
  storage.discard(0);
  storage.discard(0);  // once more changes nothing
  std::vector<uint8_t> bytes(static_cast<size_t>(storage.page_bytes()), 1);
  device.check(device.library().copy_to_device(second, bytes.data(), bytes.size(), device.stream()), "copying");
  device.check(device.library().synchronize(device.stream()), "copying");
  CHECK(storage.page(0) == first);
}

TEST("new pages are zeros, and memory comes back") {
  const cuda::Device device(library(), 0);
  const int64_t free = device.free_memory();
  cuda::CudaKvStorage storage(device, KvShape{32, 8, 128, KvFormat::kBFloat16}, 4000);
  CHECK(device.free_memory() == free);  // nothing is taken before it is used
  for (int32_t page = 0; page < 64; ++page) storage.page(page);
  CHECK(device.free_memory() <= free - 64 * storage.page_bytes());
  std::vector<uint8_t> bytes(static_cast<size_t>(storage.page_bytes()), 1);
  device.check(device.library().copy_to_host(bytes.data(), storage.page(63), bytes.size(), device.stream()), "reading");
  device.check(device.library().synchronize(device.stream()), "reading");
  CHECK(bytes == std::vector<uint8_t>(bytes.size(), 0));
  for (int32_t page = 0; page < 64; ++page) storage.discard(page);
  CHECK(device.free_memory() == free);
}

TEST_MAIN()
