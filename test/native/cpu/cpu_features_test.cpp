// The code paths that are offered are those that the processor has, by the compiler's own detection.
#include "cpu/cpu_features.h"

#include <algorithm>
#include <string>

#include "check.h"

using namespace longview;

TEST("the best path is what the compiler's runtime finds too") {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vnni");
  const auto offers = [](const std::string& isa) { return std::ranges::any_of(cpu::available_kernels(), [&](const cpu::Kernels* each) { return each->isa == isa; }); };
  CHECK(offers("avx2") == avx2);
  CHECK(offers("avxvnni") == (avx2 && __builtin_cpu_supports("avxvnni")));
  CHECK(offers("avx512") == avx512);
  CHECK(offers("avx512bf16") == (avx512 && __builtin_cpu_supports("avx512bf16")));
  CHECK(!offers("amx") || (__builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16")));
#else
  SKIP("this compiler's runtime does not say");
#endif
}

TEST("the plainest path is always there, and last") { CHECK(std::string(cpu::available_kernels().back()->isa) == "scalar"); }

TEST("the processor has a name") {
  const std::string name = cpu::processor_name();
  CHECK(!name.empty() && name.front() != ' ' && name.back() != ' ' && name.find('\0') == std::string::npos);
}

TEST_MAIN()
