// What is open of cuBLASLt while the device's memory is full, by a device and a cuBLASLt that answer so: no GPU is needed.
#include "base/error.h"
#include "check.h"
#include "cuda/blas.h"
#include "cuda/blas_api.h"

using namespace longview;

namespace {

bool full = false;      // the device has no more memory
bool refusing = false;  // cuBLASLt gives no handle
int handles = 0;        // open ones

std::unique_ptr<cuda::Blas> open_blas() {
  static const kernels::Library library = [] {
    kernels::Library table{};
    table.device_properties = [](int32_t, kernels::DeviceProperties*) { return kernels::kOk; };
    table.open_device = [](int32_t, kernels::Stream*) { return kernels::kOk; };
    table.close_stream = [](kernels::Stream) { return kernels::kOk; };
    table.allocate = [](void** pointer, size_t) {
      *pointer = full ? nullptr : &handles;
      return full ? kernels::Status{2} : kernels::kOk;  // cudaErrorMemoryAllocation
    };
    table.release = [](void*) { return kernels::kOk; };
    return table;
  }();
  static const cuda::BlasApi api = [] {
    cuda::BlasApi table{};
    table.get_version = [] { return size_t{130100}; };
    table.create = [](void** handle) {
      if (refusing) return 1;
      *handle = &handles;
      ++handles;
      return 0;
    };
    table.destroy = [](void*) { return --handles; };
    return table;
  }();
  static const cuda::Device device(library, 0);
  return cuda::Blas::open(device, api);
}

}  // namespace

TEST("a handle is closed with what it belongs to, and none is left open where there is no room for the workspace") {
  {
    const std::unique_ptr<cuda::Blas> blas = open_blas();
    CHECK(blas && blas->name() == "cuBLASLt 13.1.0" && handles == 1);
  }
  CHECK(handles == 0);
  full = true;
  CHECK_THROWS(open_blas(), kOutOfMemory);
  CHECK(handles == 0);
  full = false;
  refusing = true;
  CHECK(!open_blas() && handles == 0);
}

TEST_MAIN()
