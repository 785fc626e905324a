#include "backend/backend.h"
#include "base/error.h"

namespace longview {

std::unique_ptr<Backend> choose_backend(DeviceChoice choice, const ModelConfig& config, const CpuOptions& cpu, const GpuOptions& gpu, std::string& note) {
  note.clear();
  if (choice == DeviceChoice::kCpu) return make_cpu_backend(cpu);
  const std::string why = why_not_cuda(config);
  if (why.empty()) {
    note = why_not_options(gpu);
    return make_cuda_backend(gpu);
  }
  LONGVIEW_CHECK(choice == DeviceChoice::kAuto, kInvalidArgument, "%s Choose the device auto or cpu to go on without a GPU.", why.c_str());
  note = why;
  return make_cpu_backend(cpu);
}

}  // namespace longview
