#include "os/library.h"

#include <dlfcn.h>

namespace longview::os {

void* open_library(const std::string& path, std::string* why) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (const char* reason = library ? nullptr : dlerror(); why && reason) *why = reason;
  return library;
}

void* find_symbol(void* library, const char* name) { return dlsym(library, name); }

std::string own_path() {
  Dl_info here{};
  return dladdr(reinterpret_cast<const void*>(&own_path), &here) && here.dli_fname ? here.dli_fname : "";
}

}  // namespace longview::os
