// The pointers by which kernels find the pages of a context, where memory for them is not to be had.
#include "cuda/page_tables.h"

#include "kernels/gpu.h"

using namespace longview;

namespace {

bool full = false;  // the device has no more memory

const kernels::Library& failing() {
  static const kernels::Library table = [] {
    kernels::Library t = gpu::library();
    t.allocate = [](void** pointer, size_t bytes) { return full ? 2 : gpu::library().allocate(pointer, bytes); };  // 2: cudaErrorMemoryAllocation
    return t;
  }();
  return table;
}

}  // namespace

TEST("pointers that were half-way when memory was full are sent again") {
  const cuda::Device device(failing(), 0);
  const KvShape shape{1, 2, 64, KvFormat::kBFloat16};
  cuda::CudaKvStorage few(device, shape, 2), many(device, shape, 5000);
  const std::vector<int32_t> turned = {1, 0}, first = {0};
  cuda::PageTables tables(device);
  const auto sent = [&] {
    std::vector<void*> pointers(2);
    const kernels::PagedKv kv = tables.paged(shape, 0, {&few, turned}, 2 * kPageTokens);
    CHECK(kv.pages != nullptr);
    if (!kv.pages) return false;
    device.check(device.library().copy_to_host(pointers.data(), kv.pages, 2 * sizeof(void*), device.stream()), "reading");
    device.check(device.library().synchronize(device.stream()), "reading");
    return pointers == std::vector<void*>{few.page(1), few.page(0)};
  };
  CHECK(sent());
  many.page(0);  // what is there already: the table alone has to grow
  full = true;
  CHECK_THROWS(tables.paged(shape, 0, {&many, first}, 1), kOutOfMemory);
  full = false;
  CHECK(sent());
  tables.paged(shape, 0, {&many, first}, 1);
  CHECK(sent());
}

TEST_MAIN()
