// What the tests against reference outputs share.
#pragma once

#include "base/json.h"
#include "engine/engine.h"

// The float32 path, which is held to every id of a reference.
inline longview::EngineOptions exact(const std::string& isa) {
  using namespace longview;
  EngineOptions options;
  options.cpu.precision = Precision::kFloat32;
  options.cpu.isa = isa;
  options.kv_format = KvFormat::kFloat32;
  return options;
}

inline std::vector<int32_t> ids(const longview::Json& array) {
  std::vector<int32_t> out;
  for (const longview::Json& item : *array.array()) out.push_back(static_cast<int32_t>(*item.number()));
  return out;
}

// The next `count` tokens, of each of which the device gives the choice alone.
inline std::vector<int32_t> next_choices(longview::Engine& engine, longview::Context& context, int count) {
  std::vector<int32_t> out;
  for (int i = 0; i < count; ++i) {
    out.push_back(*context.choice());
    engine.decode(context, out.back(), longview::CancelToken(), longview::Next::kChoice);
  }
  return out;
}
