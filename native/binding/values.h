// What JavaScript gave, as C++ has it. An argument of another kind is a TypeError; a property of an object that is missing or of another
// kind is its fallback.
#pragma once

#include <napi.h>

#include <string>
#include <vector>

namespace longview::binding {

inline int64_t integer(const Napi::CallbackInfo& info, size_t index) {
  if (info.Length() <= index || !info[index].IsNumber()) throw Napi::TypeError::New(info.Env(), "argument " + std::to_string(index) + " must be a number");
  return info[index].As<Napi::Number>().Int64Value();
}

inline Napi::Object object(const Napi::CallbackInfo& info, size_t index) {
  if (info.Length() <= index || !info[index].IsObject()) throw Napi::TypeError::New(info.Env(), "argument " + std::to_string(index) + " must be an object");
  return info[index].As<Napi::Object>();
}

inline std::vector<int32_t> token_ids(const Napi::CallbackInfo& info, size_t index) {
  if (info.Length() <= index || !info[index].IsTypedArray() || info[index].As<Napi::TypedArray>().TypedArrayType() != napi_int32_array)
    throw Napi::TypeError::New(info.Env(), "tokens must be an Int32Array");
  const auto given = info[index].As<Napi::Int32Array>();
  return {given.Data(), given.Data() + given.ElementLength()};
}

inline Napi::Value argument(const Napi::CallbackInfo& info, size_t index) { return info.Length() > index ? info[index] : info.Env().Undefined(); }

// Numbers of a JavaScript array or typed array.
inline std::vector<int32_t> integers(const Napi::Value& list) {
  std::vector<int32_t> out;
  if (!list.IsObject()) return out;
  const Napi::Object items = list.As<Napi::Object>();
  const uint32_t length = items.Get("length").ToNumber().Uint32Value();
  for (uint32_t i = 0; i < length; ++i) out.push_back(items.Get(i).ToNumber().Int32Value());
  return out;
}

inline double number_or(const Napi::Object& from, const char* key, double fallback) {
  const Napi::Value value = from.Get(key);
  return value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : fallback;
}

inline std::string string_or(const Napi::Object& from, const char* key, const std::string& fallback) {
  const Napi::Value value = from.Get(key);
  return value.IsString() ? value.As<Napi::String>().Utf8Value() : fallback;
}

inline std::vector<std::string> strings(const Napi::Value& list) {
  std::vector<std::string> out;
  if (!list.IsArray()) return out;
  const Napi::Array items = list.As<Napi::Array>();
  for (uint32_t i = 0; i < items.Length(); ++i)
    if (const Napi::Value item = items.Get(i); item.IsString()) out.push_back(item.As<Napi::String>().Utf8Value());
  return out;
}

}  // namespace longview::binding
