// The system's UTF-16 and our UTF-8.
#pragma once

#include <string>
#include <string_view>

namespace longview::os {

std::wstring wide(std::string_view utf8);
std::string utf8(std::wstring_view wide);

}  // namespace longview::os
