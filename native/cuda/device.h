// An opened GPU: its stream, its memory, and errors as sentences.
#pragma once

#include <cstddef>
#include <utility>

#include "base/error.h"
#include "kernels/api/library.h"

namespace longview::cuda {

class Device {
 public:
  Device(const kernels::Library& table, int32_t index);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const kernels::Library& library() const { return library_; }
  kernels::Stream stream() const { return stream_; }
  const kernels::DeviceProperties& properties() const { return properties_; }
  int64_t free_memory() const;

  // Throws where status is an error: kOutOfMemory for a full device, kInternal for what a launcher refused, else kDeviceLost:
  // after it every call fails until the process is another one (cudaDeviceReset does not help). `what` completes "while ...".
  void check(kernels::Status status, const char* what) const;

 private:
  const kernels::Library& library_;
  const int32_t index_;
  kernels::DeviceProperties properties_{};
  kernels::Stream stream_ = nullptr;
};

// Bytes on the device, freed with the object.
class Buffer {
 public:
  Buffer() = default;
  // Throws kOutOfMemory with the numbers.
  Buffer(const Device& device, int64_t bytes, const char* what);
  ~Buffer();
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  template <typename T = void>
  T* as() const { return static_cast<T*>(data_); }
  int64_t bytes() const { return bytes_; }
  // Makes it at least this large; the content is lost when it grows.
  void grow(const Device& device, int64_t bytes, const char* what);

 private:
  const Device* device_ = nullptr;
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Page-locked bytes of the host, which copies reach without a detour; freed with the object.
class HostBuffer {
 public:
  explicit HostBuffer(const Device& device) : device_(device) {}
  ~HostBuffer();
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;

  // At least so many of them; what was there is lost where it has to grow. No copy may be under way then.
  void* room(int64_t bytes);

 private:
  const Device& device_;
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace longview::cuda
