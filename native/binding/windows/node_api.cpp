// Node's functions, found in the program that loads the addon, whatever its name: node.exe, or VS Code's Code.exe. An import
// library would name node.exe. The functions are declared dllimport (NAPI_EXTERN), so that each call goes through a pointer
// __imp_NAME, which is defined here. node_api_names.inc has NODE_API(NAME) for each, from node-api-headers.
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

extern "C" {
#define NODE_API(name) FARPROC __imp_##name = nullptr;
#include "node_api_names.inc"
#undef NODE_API
}

namespace {

struct Import {
  const char* name;
  FARPROC* to;
};

constexpr Import kImports[] = {
#define NODE_API(name) {#name, &__imp_##name},
#include "node_api_names.inc"
#undef NODE_API
};

// When the library is loaded, which is before Node calls into it. A function that this Node does not have stays null; Node-API
// has all that the addon calls since version 9.
const bool found = [] {
  const HMODULE program = GetModuleHandleW(nullptr);
  for (const Import& import : kImports) *import.to = GetProcAddress(program, import.name);
  return true;
}();

}  // namespace
