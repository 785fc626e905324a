#include "os/library.h"

#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include "os/windows/text.h"

namespace longview::os {

void* open_library(const std::string& path, std::string* why) {
  const HMODULE library = LoadLibraryW(wide(path).c_str());
  if (!library && why) *why = "error " + std::to_string(GetLastError());
  return library;
}

void* find_symbol(void* library, const char* name) { return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), name)); }

std::string own_path() {
  HMODULE here = nullptr;
  if (!GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT, reinterpret_cast<LPCWSTR>(&own_path), &here)) return "";
  std::wstring path(32768, L'\0');
  path.resize(GetModuleFileNameW(here, path.data(), static_cast<DWORD>(path.size())));
  return utf8(path);
}

}  // namespace longview::os
