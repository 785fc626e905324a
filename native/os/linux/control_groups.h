// What control groups leave of the machine's memory.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

namespace longview::os {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

// What the control groups (version 2) under `root` leave to a process whose /proc/self/cgroup is `own`: the least over its
// group and those above. What a group holds of files does not count, for the system drops it. kNoLimit where none has a limit.
int64_t room_in_groups(const std::string& root, const std::string& own);

}  // namespace longview::os
