// Writing what must be on the disk, and saying so where it cannot be.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "os/file.h"

namespace longview {

// By errno: kDiskFull or kCannotWrite, with `what` failed.
[[noreturn]] void throw_errno(const std::string& what);

void write_at(const os::File& file, int64_t offset, std::span<const std::byte> bytes, const std::string& path);
// On the disk, also after a power cut.
void sync(const os::File& file, const std::string& path);

}  // namespace longview
