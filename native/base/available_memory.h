// Memory that this process may still take.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

namespace longview {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

// A field of /proc/meminfo ("MemTotal:"), in bytes; 0 where there is none.
int64_t meminfo(std::string_view key);

// What the machine has available, or its control groups leave where that is less, as in a container; 0: not known.
int64_t available_memory();

// What the control groups (version 2) under `root` leave to a process whose /proc/self/cgroup is `own`: the least over its
// group and those above. What a group holds of files does not count, for the system drops it. kNoLimit where none has a limit.
int64_t room_in_groups(const std::string& root, const std::string& own);

}  // namespace longview
