#include "cuda/device.h"

#include <algorithm>

namespace longview::cuda {
namespace {

constexpr kernels::Status kCudaOutOfMemory = 2;  // cudaErrorMemoryAllocation

}  // namespace

Device::Device(const kernels::Library& table, int32_t index) : library_(table), index_(index) {
  check(library_.device_properties(index_, &properties_), "asking for its properties");
  check(library_.open_device(index_, &stream_), "opening it");
}

Device::~Device() { library_.close_stream(stream_); }

int64_t Device::free_memory() const {
  kernels::DeviceProperties now{};
  check(library_.device_properties(index_, &now), "asking for its free memory");
  return now.free_memory_bytes;
}

void Device::check(kernels::Status status, const char* what) const {
  if (status == kernels::kOk) return;
  LONGVIEW_CHECK(status != kCudaOutOfMemory, kOutOfMemory, "The GPU's memory is full (while %s). Close other programs that use it, or choose a smaller model or context.", what);
  LONGVIEW_CHECK(status > 0, kInternal, "The GPU code was asked for what it does not do, %s (while %s). Set longview.device to \"cpu\".", library_.status_text(status), what);
  LONGVIEW_THROW(kDeviceLost, "The GPU failed while %s: %s. The engine has to start anew: ask again; if it stays so, set longview.device to \"cpu\".", what, library_.status_text(status));
}

Buffer::Buffer(const Device& device, int64_t bytes, const char* what) : device_(&device), bytes_(bytes) {
  if (bytes <= 0) return;
  const kernels::Status status = device.library().allocate(&data_, static_cast<size_t>(bytes));
  LONGVIEW_CHECK(status != kCudaOutOfMemory, kOutOfMemory, "The GPU's memory is full: %s need %.1f MB more and %.1f MB are free. Close other programs that use it, or choose a smaller model or context.",
                 what, static_cast<double>(bytes) / 1e6, static_cast<double>(device.free_memory()) / 1e6);
  device.check(status, what);
}

Buffer::~Buffer() {
  if (data_) device_->library().release(data_);
}

void Buffer::grow(const Device& device, int64_t bytes, const char* what) {
  if (bytes <= bytes_) return;
  *this = Buffer();  // first give back, then take
  *this = Buffer(device, bytes, what);
}

HostBuffer::~HostBuffer() {
  if (data_) device_.library().release_host(data_);
}

void* HostBuffer::room(int64_t bytes) {
  if (bytes <= bytes_) return data_;
  if (data_) device_.library().release_host(std::exchange(data_, nullptr));
  bytes_ = 0;
  device_.check(device_.library().allocate_host(&data_, static_cast<size_t>(bytes)), "making room for results");
  bytes_ = bytes;
  return data_;
}

}  // namespace longview::cuda
