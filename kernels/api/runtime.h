// The CUDA runtime as the engine needs it, so that only the kernel library links it.
#pragma once

#include <cstddef>

#include "kernels/api/status.h"

namespace longview::kernels {

struct DeviceProperties {
  char name[256];
  int32_t major, minor;  // compute capability
  int32_t multiprocessors;
  int64_t memory_bytes, free_memory_bytes;
};

// Counts devices; an error where there is no driver or it is too old for this library.
Status device_count(int32_t* count);
Status device_properties(int32_t device, DeviceProperties* out);
// Makes `device` the calling thread's and creates a stream on it.
Status open_device(int32_t device, Stream* stream);
Status close_stream(Stream stream);
const char* status_text(Status status);

Status allocate(void** pointer, size_t bytes);
Status release(void* pointer);  // waits for the device
Status allocate_host(void** pointer, size_t bytes);  // page-locked
Status release_host(void* pointer);
Status copy_to_device(void* device, const void* host, size_t bytes, Stream stream);
Status copy_to_host(void* host, const void* device, size_t bytes, Stream stream);
Status copy_on_device(void* to, const void* from, size_t bytes, Stream stream);
// `rows` rows of `width` bytes that lie from_pitch and to_pitch bytes apart.
Status copy_rows_on_device(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t rows, Stream stream);
Status fill(void* device, int32_t byte, size_t bytes, Stream stream);
Status synchronize(Stream stream);

// Work queued between the two is recorded, not run: launch_graph then does all of it, as often as it is called. `graph` keeps what
// was recorded before (null at first) and is changed where the new work has the same shape, else made anew; release_graph gives it
// back. Without a graph (null) what was recorded is dropped.
using Graph = void*;  // cudaGraphExec_t
Status begin_recording(Stream stream);
Status end_recording(Stream stream, Graph* graph);
Status launch_graph(Graph graph, Stream stream);
Status release_graph(Graph graph);

// Timing, for benches.
Status create_event(Event* event);
Status destroy_event(Event event);
Status record_event(Event event, Stream stream);
Status elapsed_ms(Event begin, Event end, float* milliseconds);  // waits for `end`

}  // namespace longview::kernels
