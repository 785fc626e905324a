#include <cstring>

#include "kernels/api/runtime.h"
#include "kernels/common/launch.cuh"

namespace longview::kernels {
namespace {

// An error of an earlier launch stays for its own check unless it is taken back here.
Status checked(cudaError_t error) {
  if (error != cudaSuccess) cudaGetLastError();
  return static_cast<Status>(error);
}

}  // namespace

Status device_count(int32_t* count) {
  *count = 0;
  return checked(cudaGetDeviceCount(count));
}

Status device_properties(int32_t device, DeviceProperties* out) {
  cudaDeviceProp properties;
  if (const Status status = checked(cudaGetDeviceProperties(&properties, device))) return status;
  if (const Status status = checked(cudaSetDevice(device))) return status;
  size_t free = 0, total = 0;
  if (const Status status = checked(cudaMemGetInfo(&free, &total))) return status;
  std::memcpy(out->name, properties.name, sizeof(out->name));
  out->major = properties.major;
  out->minor = properties.minor;
  out->multiprocessors = properties.multiProcessorCount;
  out->memory_bytes = static_cast<int64_t>(total);
  out->free_memory_bytes = static_cast<int64_t>(free);
  return kOk;
}

Status open_device(int32_t device, Stream* stream) {
  if (const Status status = checked(cudaSetDevice(device))) return status;
  cudaStream_t created = nullptr;
  const Status status = checked(cudaStreamCreateWithFlags(&created, cudaStreamNonBlocking));
  *stream = created;
  return status;
}

Status close_stream(Stream stream) { return checked(cudaStreamDestroy(cuda(stream))); }

const char* status_text(Status status) {
  switch (status) {
    case kInvalidShape: return "a size that the kernel does not take";
    case kInvalidAlignment: return "a pointer that is not aligned";
    case kUnsupportedType: return "a weight type without a kernel";
    default: return cudaGetErrorString(static_cast<cudaError_t>(status));
  }
}

// In whole words: kernels read weights by them, whose last may end within one (MXFP4).
Status allocate(void** pointer, size_t bytes) { return checked(cudaMalloc(pointer, (bytes + 3) / 4 * 4)); }
Status release(void* pointer) { return checked(cudaFree(pointer)); }
Status allocate_host(void** pointer, size_t bytes) { return checked(cudaMallocHost(pointer, bytes)); }
Status release_host(void* pointer) { return checked(cudaFreeHost(pointer)); }

Status copy_to_device(void* device, const void* host, size_t bytes, Stream stream) {
  return checked(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, cuda(stream)));
}
Status copy_to_host(void* host, const void* device, size_t bytes, Stream stream) {
  return checked(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, cuda(stream)));
}
Status copy_on_device(void* to, const void* from, size_t bytes, Stream stream) {
  return checked(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, cuda(stream)));
}
Status copy_rows_on_device(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t rows, Stream stream) {
  return checked(cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, rows, cudaMemcpyDeviceToDevice, cuda(stream)));
}
Status fill(void* device, int32_t byte, size_t bytes, Stream stream) {
  return checked(cudaMemsetAsync(device, byte, bytes, cuda(stream)));
}
Status synchronize(Stream stream) { return checked(cudaStreamSynchronize(cuda(stream))); }

Status begin_recording(Stream stream) { return checked(cudaStreamBeginCapture(cuda(stream), cudaStreamCaptureModeRelaxed)); }

Status end_recording(Stream stream, Graph* graph) {
  cudaGraph_t recorded = nullptr;
  if (const Status status = checked(cudaStreamEndCapture(cuda(stream), &recorded))) return status;
  Status status = kOk;
  if (graph) {
    auto executable = static_cast<cudaGraphExec_t>(*graph);
    if (executable) {
      cudaGraphExecUpdateResultInfo difference;
      if (checked(cudaGraphExecUpdate(executable, recorded, &difference)) != kOk) {
        cudaGraphExecDestroy(executable);
        executable = nullptr;
      }
    }
    if (!executable) status = checked(cudaGraphInstantiate(&executable, recorded, 0));
    *graph = status == kOk ? executable : nullptr;
  }
  cudaGraphDestroy(recorded);
  return status;
}

Status launch_graph(Graph graph, Stream stream) { return checked(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), cuda(stream))); }
Status release_graph(Graph graph) { return checked(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph))); }

Status create_event(Event* event) {
  cudaEvent_t created = nullptr;
  const Status status = checked(cudaEventCreate(&created));
  *event = created;
  return status;
}
Status destroy_event(Event event) { return checked(cudaEventDestroy(static_cast<cudaEvent_t>(event))); }
Status record_event(Event event, Stream stream) {
  return checked(cudaEventRecord(static_cast<cudaEvent_t>(event), cuda(stream)));
}
Status elapsed_ms(Event begin, Event end, float* milliseconds) {
  if (const Status status = checked(cudaEventSynchronize(static_cast<cudaEvent_t>(end)))) return status;
  return checked(cudaEventElapsedTime(milliseconds, static_cast<cudaEvent_t>(begin), static_cast<cudaEvent_t>(end)));
}

}  // namespace longview::kernels
