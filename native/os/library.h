// Shared libraries, opened at run time.
#pragma once

#include <string>

namespace longview::os {

// Null where it cannot be opened; `why`, where it is asked for, gets the system's sentence.
void* open_library(const std::string& path, std::string* why = nullptr);
void* find_symbol(void* library, const char* name);
// The file that this code was loaded from; empty: not known.
std::string own_path();

}  // namespace longview::os
