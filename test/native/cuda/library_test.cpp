// Which GPUs are taken and what is said of the others, by a library that answers as each would: no GPU is needed.
#include "cuda/library.h"

#include "check.h"

using namespace longview;

namespace {

constexpr kernels::Status kUnavailable = 46;  // cudaErrorDevicesUnavailable

kernels::Status one_device(int32_t* count) {
  *count = 1;
  return kernels::kOk;
}

template <int32_t Major, int32_t Minor, kernels::Status Result = kernels::kOk>
kernels::Status properties(int32_t, kernels::DeviceProperties* out) {
  std::strcpy(out->name, "NVIDIA Something");
  out->major = Major;
  out->minor = Minor;
  return Result;
}

std::string why_not(decltype(&kernels::device_count) count, decltype(&kernels::device_properties) device) {
  kernels::Library library{};
  library.device_count = count;
  library.device_properties = device;
  library.status_text = [](kernels::Status) { return "all of them are busy"; };
  return cuda::why_not_device(library);
}

}  // namespace

TEST("a GPU is taken where it opens and is new enough") {
  CHECK(why_not(one_device, properties<8, 0>) == "");
  CHECK(why_not(one_device, properties<12, 0>) == "");
  CHECK(why_not(one_device, properties<7, 5>) == "The NVIDIA Something has compute capability 7.5; the GPU code needs 8.0 or newer.");
  CHECK(why_not(one_device, properties<9, 0, kUnavailable>) == "The NVIDIA GPU cannot be used: all of them are busy.");
}

TEST("no driver, an old one, one without its library, and no GPU are told apart") {
  constexpr const char* kOpen = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (archive@builder)  Thu Jan 23";
  constexpr const char* kOwn = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024";
  CHECK(cuda::why_not_driver(false, "") == "There is no NVIDIA driver.");
  CHECK(cuda::why_not_driver(true, kOpen) == "The NVIDIA driver 570.86.15 is too old: the GPU code needs 580 or newer (CUDA 13).");
  CHECK(cuda::why_not_driver(true, kOwn).starts_with("The NVIDIA driver 535.183.01 is too old"));
  CHECK(cuda::why_not_driver(true, "").starts_with("The NVIDIA driver is too old"));
  CHECK(cuda::why_not_driver(false, kOpen).starts_with("The NVIDIA driver 570.86.15 is there, but not its library"));
  CHECK(why_not([](int32_t*) { return kernels::Status{35}; }, nullptr).find("NVIDIA driver") != std::string::npos);
  CHECK(why_not([](int32_t*) { return kernels::kOk; }, nullptr) == "There is no NVIDIA GPU.");
}

TEST_MAIN()
