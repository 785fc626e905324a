#include "cuda/library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>

#include "base/error.h"

namespace longview::cuda {
namespace {

constexpr kernels::Status kInsufficientDriver = 35;  // cudaErrorInsufficientDriver

std::string library_path() {
  if (const char* given = std::getenv("LONGVIEW_CUDA_LIBRARY"); given && *given) return given;
  Dl_info here{};
  if (!dladdr(reinterpret_cast<const void*>(&load_library), &here) || !here.dli_fname) return "longview_cuda.so";
  std::error_code ignored;
  const std::filesystem::path program = std::filesystem::absolute(here.dli_fname, ignored);
  return (program.parent_path() / "longview_cuda.so").string();
}

Loaded load() {
  const std::string path = library_path();
  if (!std::filesystem::exists(path)) return {nullptr, "This build has no GPU code (longview_cuda.so is not there)."};
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) return {nullptr, format("The GPU code could not be loaded (%s).", dlerror())};
  const auto table = reinterpret_cast<decltype(&kernels::longview_kernels)>(dlsym(handle, kernels::kLibrarySymbol));
  const kernels::Library* library = table ? table() : nullptr;
  if (!library || library->version != kernels::kLibraryVersion)
    return {nullptr, format("%s belongs to another version of Longview.", path.c_str())};
  int32_t count = 0;
  const kernels::Status status = library->device_count(&count);
  if (status == kInsufficientDriver) return {nullptr, "There is no NVIDIA driver, or it is too old: the GPU code needs 580 or newer (CUDA 13)."};
  if (status != kernels::kOk) return {nullptr, format("No NVIDIA GPU can be used: %s.", library->status_text(status))};
  if (count == 0) return {nullptr, "There is no NVIDIA GPU."};
  return {library, ""};
}

}  // namespace

const Loaded& load_library() {
  static const Loaded loaded = load();
  return loaded;
}

}  // namespace longview::cuda
