// The header of one GGUF file, v2 or v3, before its tensors are placed. Source: ggml's docs/gguf.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/model_file.h"

namespace longview {

struct GgufTensorInfo {
  std::string name;
  std::vector<int64_t> shape;  // outermost first, at most 2^48 elements
  uint32_t type = 0;           // GGUF's number, readable or not
  uint64_t offset = 0;         // from data_start, aligned
};

struct GgufHeader {
  Metadata metadata;
  std::vector<GgufTensorInfo> tensors;
  uint64_t data_start = 0;  // may lie behind the end of a file that is cut off

  // -1, which no key of the format itself may be, for a value of another kind.
  int64_t integer_or(const char* key, int64_t fallback) const;
};

// Every count, length and offset is checked against the file before it is used, and nothing is allocated that
// the bytes left in the file could not fill. Throws kUnknownFormat, kFileTruncated or kFileCorrupt.
GgufHeader read_gguf_header(const MappedFile& file);

}  // namespace longview
