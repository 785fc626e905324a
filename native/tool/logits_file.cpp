#include "tool/logits_file.h"

#include <fstream>

#include "base/error.h"

namespace longview {

void write_logits(const std::string& path, std::span<const float> logits, int64_t vocabulary) {
  const auto bytes = static_cast<uint64_t>(logits.size_bytes());
  std::string header = format("{\"logits\":{\"dtype\":\"F32\",\"shape\":[%lld,%lld],\"data_offsets\":[0,%llu]}}",
                              static_cast<long long>(static_cast<int64_t>(logits.size()) / vocabulary), static_cast<long long>(vocabulary),
                              static_cast<unsigned long long>(bytes));
  header.resize((header.size() + 7) / 8 * 8, ' ');  // the data begins aligned
  const auto length = static_cast<uint64_t>(header.size());
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(&length), sizeof length);
  file << header;
  file.write(reinterpret_cast<const char*>(logits.data()), static_cast<std::streamsize>(bytes));
  LONGVIEW_CHECK(file.flush(), kFileNotFound, "%s cannot be written.", path.c_str());
}

}  // namespace longview
