// Where cuBLASLt may lie, and its functions by name.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "cuda/blas_api.h"
#include "os/library.h"

namespace longview::cuda {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNames[] = {"libcublasLt.so.13", "libcublasLt.so.12"};

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// The numbers in a path's last part, to be compared: {3, 11} of python3.11.
std::vector<int64_t> version_of(const fs::path& path) {
  std::vector<int64_t> numbers;
  bool inside = false;
  for (const char c : path.filename().string()) {
    const bool digit = c >= '0' && c <= '9';
    if (digit && !inside) numbers.push_back(0);
    if (digit) numbers.back() = std::min<int64_t>(numbers.back() * 10 + (c - '0'), 1'000'000);
    inside = digit;
  }
  return numbers;
}

// Entries of `folder` whose names begin so, newer versions first: 3.11 before 3.9.
std::vector<fs::path> entries(const fs::path& folder, const std::string& prefix) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored))
    if (entry.path().filename().string().starts_with(prefix)) found.push_back(entry.path());
  std::ranges::sort(found, [](const fs::path& a, const fs::path& b) { return version_of(a) > version_of(b); });
  return found;
}

}  // namespace

std::vector<fs::path> blas_folders() {
  std::vector<fs::path> found;
  const auto toolkit = [&](const fs::path& at) {
    for (const char* part : {"lib64", "lib", "targets/x86_64-linux/lib"}) found.push_back(at / part);
  };
  for (const char* name : {"CUDA_PATH", "CUDA_HOME"})
    if (const std::string at = variable(name); !at.empty()) toolkit(at);
  for (const fs::path& at : entries("/usr/local", "cuda")) toolkit(at);
  std::istringstream path(variable("PATH"));
  for (std::string bin; std::getline(path, bin, ':');) {
    std::error_code ignored;
    if (bin.empty() || !fs::exists(fs::path(bin) / "python3", ignored)) continue;
    for (const fs::path& python : entries(fs::path(bin).parent_path() / "lib", "python3"))
      for (const char* packages : {"site-packages", "dist-packages"})
        for (const char* part : {"nvidia/cu13/lib", "nvidia/cublas/lib"}) found.push_back(python / packages / part);
  }
  return found;
}

namespace {

void* open_library() {
  const std::string given = variable("LONGVIEW_CUBLASLT");
  if (given == "off") return nullptr;
  if (!given.empty()) return os::open_library(given);
  const std::vector<fs::path> places = blas_folders();
  for (const char* name : kNames) {
    for (const fs::path& folder : places) {
      std::error_code ignored;
      if (!fs::exists(folder / name, ignored)) continue;
      if (void* library = os::open_library((folder / name).string())) return library;
    }
    if (void* library = os::open_library(name)) return library;
  }
  return nullptr;
}

bool resolve(void* library, BlasApi& api) {
  bool complete = true;
  const auto take = [&]<typename F>(F& function, const char* name) {
    function = reinterpret_cast<F>(os::find_symbol(library, name));
    complete = complete && function;
  };
  take(api.get_version, "cublasLtGetVersion");
  take(api.create, "cublasLtCreate");
  take(api.destroy, "cublasLtDestroy");
  take(api.matmul, "cublasLtMatmul");
  take(api.create_description, "cublasLtMatmulDescCreate");
  take(api.destroy_description, "cublasLtMatmulDescDestroy");
  take(api.set_description, "cublasLtMatmulDescSetAttribute");
  take(api.create_layout, "cublasLtMatrixLayoutCreate");
  take(api.destroy_layout, "cublasLtMatrixLayoutDestroy");
  take(api.create_preference, "cublasLtMatmulPreferenceCreate");
  take(api.destroy_preference, "cublasLtMatmulPreferenceDestroy");
  take(api.set_preference, "cublasLtMatmulPreferenceSetAttribute");
  take(api.choose, "cublasLtMatmulAlgoGetHeuristic");
  return complete;
}

}  // namespace

const BlasApi* load_blas() {
  static BlasApi api{};
  static const bool loaded = [] {
    void* library = open_library();
    return library && resolve(library, api);
  }();
  return loaded ? &api : nullptr;
}

}  // namespace longview::cuda
