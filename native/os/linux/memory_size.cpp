#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <string_view>

#include "os/linux/control_groups.h"
#include "os/memory.h"

namespace longview::os {
namespace {

// Empty where it cannot be read.
std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The number at the beginning of `text`, or `fallback`: "max" is none.
int64_t number_or(std::string_view text, int64_t fallback) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  int64_t value = 0;
  return std::from_chars(text.data(), text.data() + text.size(), value).ec == std::errc() ? value : fallback;
}

// What follows `key` on the line that begins with it; empty where none does.
std::string_view after(std::string_view text, std::string_view key) {
  while (!text.starts_with(key)) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) return {};
    text.remove_prefix(end + 1);
  }
  text.remove_prefix(key.size());
  return text.substr(0, text.find('\n'));
}

// A field of /proc/meminfo, in bytes; 0 where there is none.
int64_t meminfo(std::string_view key) { return number_or(after(text_of("/proc/meminfo"), key), 0) * 1024; }

int64_t room_in_group(const std::string& folder) {
  const int64_t most = number_or(text_of(folder + "/memory.max"), kNoLimit);
  if (most == kNoLimit) return kNoLimit;
  const std::string stat = text_of(folder + "/memory.stat");
  const int64_t files = number_or(after(stat, "active_file "), 0) + number_or(after(stat, "inactive_file "), 0);
  return most - std::max<int64_t>(number_or(text_of(folder + "/memory.current"), 0) - files, 0);
}

}  // namespace

int64_t room_in_groups(const std::string& root, const std::string& own) {
  std::string group(after(own, "0::"));
  int64_t room = kNoLimit;
  while (true) {
    room = std::min(room, room_in_group(root + group));
    if (group.empty()) return std::max<int64_t>(room, 1);  // 0 would be: not known
    group.resize(std::min(group.rfind('/'), group.size() - 1));
  }
}

int64_t total_memory() { return meminfo("MemTotal:"); }

// What the machine has available, or its control groups leave where that is less, as in a container.
int64_t available_memory() { return std::min(meminfo("MemAvailable:"), room_in_groups("/sys/fs/cgroup", text_of("/proc/self/cgroup"))); }

}  // namespace longview::os
