// The one error type of the engine. Thrown, never aborted on: every input file is hostile until checked.
#pragma once

#include <cstdio>
#include <stdexcept>
#include <string>

namespace longview {

// Stable codes: the server maps them to what a user can do. Their names travel to JavaScript as `error.code`.
enum class ErrorCode {
  kInvalidArgument,
  kFileNotFound,
  kFileTruncated,
  kFileCorrupt,
  kUnknownFormat,
  kUnsupportedArchitecture,
  kUnsupportedQuantization,
  kOutOfMemory,
  kWindowExceeded,
  kCancelled,
  kDeviceLost,  // the GPU failed; this process cannot use it any more
  kDiskFull,
  kCannotWrite,
  kInternal,
};

constexpr const char* name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return "invalid_argument";
    case ErrorCode::kFileNotFound: return "file_not_found";
    case ErrorCode::kFileTruncated: return "file_truncated";
    case ErrorCode::kFileCorrupt: return "file_corrupt";
    case ErrorCode::kUnknownFormat: return "unknown_format";
    case ErrorCode::kUnsupportedArchitecture: return "unsupported_architecture";
    case ErrorCode::kUnsupportedQuantization: return "unsupported_quantization";
    case ErrorCode::kOutOfMemory: return "out_of_memory";
    case ErrorCode::kWindowExceeded: return "window_exceeded";
    case ErrorCode::kCancelled: return "cancelled";
    case ErrorCode::kDeviceLost: return "device_lost";
    case ErrorCode::kDiskFull: return "disk_full";
    case ErrorCode::kCannotWrite: return "cannot_write";
    case ErrorCode::kInternal: return "internal";
  }
  return "internal";
}

// `what()` is a sentence that a user can act on; file and line are for the log.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode error_code, const std::string& what, const char* source, int at)
      : std::runtime_error(what), code(error_code), file(source), line(at) {}

  const ErrorCode code;
  const char* const file;
  const int line;
};

// printf into a std::string, for error sentences.
template <typename... Args>
std::string format(const char* pattern, Args... args) {
  const int size = std::snprintf(nullptr, 0, pattern, args...);
  std::string text(static_cast<size_t>(size > 0 ? size : 0), '\0');
  std::snprintf(text.data(), text.size() + 1, pattern, args...);
  return text;
}

}  // namespace longview

#define LONGVIEW_THROW(code, ...) \
  throw ::longview::Error(::longview::ErrorCode::code, ::longview::format(__VA_ARGS__), __FILE__, __LINE__)
#define LONGVIEW_CHECK(condition, code, ...)             \
  do {                                                   \
    if (!(condition)) LONGVIEW_THROW(code, __VA_ARGS__); \
  } while (false)
