#include "binding/metadata.h"

#include <cstring>
#include <filesystem>

#include "binding/values.h"
#include "model/model_file.h"
#include "os/file.h"

namespace longview::binding {
namespace {

Napi::Value to_value(Napi::Env env, const MetadataValue& value);

template <typename T>
Napi::Value to_array(Napi::Env env, const std::vector<T>& items) {
  Napi::Array array = Napi::Array::New(env, items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    if constexpr (std::is_same_v<T, std::string>) array.Set(static_cast<uint32_t>(i), Napi::String::New(env, items[i]));
    else if constexpr (std::is_same_v<T, MetadataValue>) array.Set(static_cast<uint32_t>(i), to_value(env, items[i]));
    else if constexpr (std::is_same_v<T, bool>) array.Set(static_cast<uint32_t>(i), Napi::Boolean::New(env, items[i]));
    else array.Set(static_cast<uint32_t>(i), Napi::Number::New(env, static_cast<double>(items[i])));
  }
  return array;
}

struct Convert {
  Napi::Env env;
  Napi::Value operator()(bool value) const { return Napi::Boolean::New(env, value); }
  Napi::Value operator()(const std::string& value) const { return Napi::String::New(env, value); }
  template <typename T>
  Napi::Value operator()(const std::vector<T>& items) const {
    return to_array(env, items);
  }
  template <typename T>
  Napi::Value operator()(T value) const {
    return Napi::Number::New(env, static_cast<double>(value));
  }
};

Napi::Value to_value(Napi::Env env, const MetadataValue& value) {
  return std::visit(Convert{env}, static_cast<const MetadataValue::variant&>(value));
}

}  // namespace

Napi::Value read_model_metadata(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 1 || !info[0].IsString()) refuse(env, "readModelMetadata needs a path.");
  try {
    const auto file = ModelFile::open(info[0].As<Napi::String>().Utf8Value());
    Napi::Object out = Napi::Object::New(env), values = Napi::Object::New(env);
    const bool gguf = file->format() == ModelFile::Format::kGguf;
    out.Set("format", gguf ? "gguf" : "safetensors");
    for (const auto& [key, value] : file->metadata()) values.Set(key, to_value(env, value));
    out.Set("values", values);
    if (!gguf) {
      const std::filesystem::path path = os::path_of(file->path());
      out.Set("folder", os::utf8_of(std::filesystem::is_directory(path) ? path : path.parent_path()));
    }
    return out;
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception&) {
    throw to_js(env, caught());
  }
}

}  // namespace longview::binding
