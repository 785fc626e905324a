#include "cuda/library.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "os/file.h"
#include "os/library.h"

namespace longview::cuda {
namespace {

constexpr kernels::Status kInsufficientDriver = 35;  // cudaErrorInsufficientDriver
constexpr int32_t kLeastMajor = 8;                   // of the compute capability that the kernels are built for

std::string library_path() {
  if (const char* given = std::getenv("LONGVIEW_CUDA_LIBRARY"); given && *given) return given;
  std::error_code ignored;
  const std::filesystem::path here = std::filesystem::absolute(os::path_of(os::own_path()), ignored);
  return os::utf8_of(here.parent_path() / "longview_cuda.so");
}

// "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build ..."; WSL has no such file.
std::string version_line() {
  std::ifstream file("/proc/driver/nvidia/version");
  std::string line;
  std::getline(file, line);
  return line;
}

// The first word of digits and dots.
std::string version_in(const std::string& line) {
  std::istringstream words(line);
  for (std::string word; words >> word;)
    if (word.find('.') != std::string::npos && word.find_first_not_of("0123456789.") == std::string::npos) return word;
  return "";
}

Loaded load() {
  const std::string path = library_path();
  if (os::status(path).kind == os::Kind::kNothing) return {nullptr, "This build has no GPU code (longview_cuda.so is not there)."};
  std::string why_not;
  void* handle = os::open_library(path, &why_not);
  if (!handle) return {nullptr, format("The GPU code could not be loaded (%s).", why_not.c_str())};
  const auto table = reinterpret_cast<decltype(&kernels::longview_kernels)>(os::find_symbol(handle, kernels::kLibrarySymbol));
  const kernels::Library* library = table ? table() : nullptr;
  if (!library || library->version != kernels::kLibraryVersion)
    return {nullptr, format("%s belongs to another version of Longview.", path.c_str())};
  const std::string why = why_not_device(*library);
  return {why.empty() ? library : nullptr, why};
}

}  // namespace

std::string why_not_driver(bool has_library, const std::string& version_line) {
  const std::string version = version_in(version_line);
  if (has_library) return format("The NVIDIA driver%s is too old: the GPU code needs 580 or newer (CUDA 13).", version.empty() ? "" : (" " + version).c_str());
  if (version.empty()) return "There is no NVIDIA driver.";
  // As in a container, which sees the kernel of its host.
  return format("The NVIDIA driver %s is there, but not its library, libcuda.so.1. A container needs NVIDIA's container toolkit and `--gpus all`.", version.c_str());
}

std::string why_not_device(const kernels::Library& library) {
  int32_t count = 0;
  kernels::Status status = library.device_count(&count);
  if (status == kInsufficientDriver) return why_not_driver(os::open_library("libcuda.so.1") != nullptr, version_line());
  if (status != kernels::kOk) return format("No NVIDIA GPU can be used: %s.", library.status_text(status));
  if (count == 0) return "There is no NVIDIA GPU.";
  kernels::DeviceProperties gpu{};
  status = library.device_properties(0, &gpu);
  if (status != kernels::kOk) return format("The NVIDIA GPU cannot be used: %s.", library.status_text(status));
  if (gpu.major < kLeastMajor) return format("The %s has compute capability %d.%d; the GPU code needs %d.0 or newer.", gpu.name, gpu.major, gpu.minor, kLeastMajor);
  return "";
}

const Loaded& load_library() {
  static const Loaded loaded = load();
  return loaded;
}

}  // namespace longview::cuda
