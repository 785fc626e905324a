#include "cpu/cpu_features.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace longview::cpu {
namespace {

#if defined(__x86_64__)
struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// Zeros where the processor has no such leaf.
Registers cpuid(uint32_t leaf, uint32_t subleaf = 0) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

constexpr bool bit(uint32_t word, int at) { return (word >> at & 1) != 0; }

// Which registers the system saves: XCR0. Without it nothing wider than SSE may be used.
uint64_t saved_registers() {
  if (!bit(cpuid(1).ecx, 27)) return 0;  // OSXSAVE
  uint32_t low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

// By CPUID itself: __builtin_cpu_supports answers "no" to everything where a compiler's runtime is not initialised, as zig's.
// Bits: Intel's Software Developer's Manual, volume 2, CPUID.
struct X86 {
  bool avx2 = false, avx512 = false, avxvnni = false, avx512bf16 = false, amx = false;

  X86() {
    const Registers one = cpuid(1), seven = cpuid(7), seven_one = cpuid(7, 1);
    const uint64_t saved = saved_registers();
    const bool ymm = (saved & 0x6) == 0x6, zmm = (saved & 0xe6) == 0xe6, tiles = (saved & 0x60000) == 0x60000;
    avx2 = ymm && bit(seven.ebx, 5) && bit(one.ecx, 12) && bit(one.ecx, 29) && bit(seven.ebx, 8);  // with FMA, F16C, BMI2
    avx512 = avx2 && zmm && bit(seven.ebx, 16) && bit(seven.ebx, 30) && bit(seven.ebx, 17) && bit(seven.ebx, 31) && bit(seven.ecx, 11);  // F, BW, DQ, VL, VNNI
    avxvnni = avx2 && bit(seven_one.eax, 4);
    avx512bf16 = avx512 && bit(seven_one.eax, 5);
    amx = avx512bf16 && tiles && bit(seven.edx, 24) && bit(seven.edx, 22) && bit(seven.edx, 25);  // tile, bf16, int8
  }
};

// Linux hands out the 8 KiB of tile registers on request only (Documentation/arch/x86/xstate.rst).
bool request_tiles() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#elif defined(__aarch64__)
bool has_dot_products() {
#if defined(__linux__)
  constexpr unsigned long kDotProducts = 1ul << 20;  // HWCAP_ASIMDDP (Documentation/arch/arm64/elf_hwcaps.rst)
  return (getauxval(AT_HWCAP) & kDotProducts) != 0;
#else
  return true;  // Apple's have them
#endif
}
#endif

}  // namespace

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> found;
#if defined(__x86_64__)
  const X86 has;
  if (has.amx && request_tiles()) found.push_back(&kAmxKernels);
  if (has.avx512bf16) found.push_back(&kAvx512Bf16Kernels);
  if (has.avx512) found.push_back(&kAvx512Kernels);
  if (has.avxvnni) found.push_back(&kAvxVnniKernels);
  if (has.avx2) found.push_back(&kAvx2Kernels);
#elif defined(__aarch64__)
  if (has_dot_products()) found.push_back(&kNeonDotKernels);
  found.push_back(&kNeonKernels);
#endif
  found.push_back(&kScalarKernels);
  return found;
}

std::string processor_name() {
  std::array<char, 64> name{};  // 48 characters of x86, and a zero
#if defined(__x86_64__)
  if (cpuid(0x80000000).eax >= 0x80000004)
    for (uint32_t i = 0; i < 3; ++i) {
      const Registers part = cpuid(0x80000002 + i);
      std::memcpy(name.data() + 16 * i, &part, sizeof(part));
    }
#elif defined(__APPLE__)
  size_t size = name.size() - 1;
  (void)sysctlbyname("machdep.cpu.brand_string", name.data(), &size, nullptr, 0);
#endif
  std::string text(name.data());
  text.erase(0, std::min(text.find_first_not_of(' '), text.size()));
  text.erase(text.find_last_not_of(' ') + 1);
  return text.empty() ? "CPU" : text;
}

}  // namespace longview::cpu
