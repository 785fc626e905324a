// A small file that is written as a whole: readers find the former content or all of the new, also after a power cut.
#pragma once

#include <string>
#include <string_view>

namespace longview {

// Writes under another name and renames. Throws kDiskFull or kCannotWrite; then the former file is there, and nothing beside it.
void replace_file(const std::string& path, std::string_view bytes);

}  // namespace longview
