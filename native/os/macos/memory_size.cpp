#include <mach/mach.h>
#include <sys/sysctl.h>

#include "os/memory.h"

namespace longview::os {

int64_t total_memory() {
  uint64_t bytes = 0;
  size_t size = sizeof(bytes);
  return sysctlbyname("hw.memsize", &bytes, &size, nullptr, 0) == 0 ? static_cast<int64_t>(bytes) : 0;
}

// What nothing uses, and files that the system keeps in memory and can drop.
int64_t available_memory() {
  vm_statistics64 found{};
  mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
  if (host_statistics64(mach_host_self(), HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&found), &count) != KERN_SUCCESS) return 0;
  const auto pages = static_cast<int64_t>(found.free_count) + found.inactive_count + found.purgeable_count;
  return pages * page_size();
}

}  // namespace longview::os
