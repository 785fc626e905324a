#include "base/text.h"

#include "base/error.h"

namespace longview {

size_t utf8_length(std::string_view text) {
  if (text.empty()) return 0;
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  const uint8_t second = byte(1);
  if (first == 0xe0 && second < 0xa0) return 0;  // overlong
  if (first == 0xed && second > 0x9f) return 0;  // surrogates
  if (first == 0xf0 && second < 0x90) return 0;  // overlong
  if (first == 0xf4 && second > 0x8f) return 0;  // above U+10FFFF
  return length;
}

std::string printable(std::string_view text, size_t limit) {
  std::string out;
  while (!text.empty() && out.size() < limit) {
    const size_t length = utf8_length(text);
    const bool shown = length > 1 || (length == 1 && text[0] >= 0x20 && text[0] != 0x7f);
    if (shown)
      out += text.substr(0, length);
    else
      out += '?';
    text.remove_prefix(length == 0 ? 1 : length);
  }
  if (!text.empty()) out += "…";
  return out;
}

std::string human_size(int64_t bytes) {
  if (bytes < 1000) return format("%lld bytes", static_cast<long long>(bytes));
  static constexpr const char* kUnits[] = {"kB", "MB", "GB", "TB", "PB", "EB"};
  double value = static_cast<double>(bytes) / 1000;
  size_t unit = 0;
  for (; value >= 999.95 && unit + 1 < sizeof(kUnits) / sizeof(kUnits[0]); ++unit) value /= 1000;
  return format("%.1f %s", value, kUnits[unit]);
}

}  // namespace longview
