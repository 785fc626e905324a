// Text for error sentences: what comes out of a file is shortened and made printable before a person sees it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace longview {

// Length of the UTF-8 character at the start of `text` (1 to 4), or 0 where the bytes are no character:
// overlong forms, surrogates and values above U+10FFFF are none.
size_t utf8_length(std::string_view text);

// `text` with control characters and broken UTF-8 as '?', cut to about `limit` bytes with an ellipsis.
std::string printable(std::string_view text, size_t limit = 100);

// "512 bytes", "94.4 MB", "17.1 GB": decimal units, as file managers and model pages give them.
std::string human_size(int64_t bytes);

}  // namespace longview
