// What JavaScript gave, as C++ has it. What is of another kind, or a number out of its range, is an exception of JavaScript's with the
// engine's code; a property of an object that is missing is its fallback.
#pragma once

#include <napi.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"

namespace longview::binding {

// Up to here every whole number is a double of its own.
constexpr int64_t kMaxWhole = (int64_t{1} << 53) - 1;

[[noreturn]] inline void refuse(Napi::Env env, const std::string& what) {
  Napi::TypeError error = Napi::TypeError::New(env, what);
  error.Set("code", Napi::String::New(env, name(ErrorCode::kInvalidArgument)));
  throw error;
}

// NaN where it is none.
inline double number_of(const Napi::Value& value) { return value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::numeric_limits<double>::quiet_NaN(); }

[[noreturn]] inline void refuse_number(const Napi::Value& value, const std::string& what) { refuse(value.Env(), what + (value.IsNumber() ? format(", not %g.", number_of(value)) : ".")); }

// `what` names it. No fraction is cut off, NaN is no number, and nothing is brought into range in silence.
inline int64_t whole(const Napi::Value& value, const std::string& what, int64_t low, int64_t high) {
  const double number = number_of(value);
  if (number >= static_cast<double>(low) && number <= static_cast<double>(high) && number == std::trunc(number)) return static_cast<int64_t>(number);
  refuse_number(value, what + format(" must be a whole number from %lld to %lld", static_cast<long long>(low), static_cast<long long>(high)));
}

inline Napi::Value argument(const Napi::CallbackInfo& info, size_t index) { return info.Length() > index ? info[index] : info.Env().Undefined(); }

inline int64_t integer(const Napi::CallbackInfo& info, size_t index) { return whole(argument(info, index), "Argument " + std::to_string(index), -kMaxWhole, kMaxWhole); }

inline int priority(const Napi::CallbackInfo& info, size_t index) {
  return static_cast<int>(whole(argument(info, index), "A priority", std::numeric_limits<int>::min(), std::numeric_limits<int>::max()));
}

inline Napi::Object object(const Napi::CallbackInfo& info, size_t index) {
  if (info.Length() <= index || !info[index].IsObject()) refuse(info.Env(), "Argument " + std::to_string(index) + " must be an object.");
  return info[index].As<Napi::Object>();
}

inline std::vector<int32_t> token_ids(const Napi::CallbackInfo& info, size_t index) {
  if (info.Length() <= index || !info[index].IsTypedArray() || info[index].As<Napi::TypedArray>().TypedArrayType() != napi_int32_array)
    refuse(info.Env(), "Tokens must be an Int32Array.");
  const auto given = info[index].As<Napi::Int32Array>();
  return {given.Data(), given.Data() + given.ElementLength()};
}

// Token ids of a JavaScript array or typed array.
inline std::vector<int32_t> integers(const Napi::Value& list) {
  if (!list.IsArray() && !list.IsTypedArray()) refuse(list.Env(), "Token ids must be a list of numbers.");
  std::vector<int32_t> out;
  const Napi::Object items = list.As<Napi::Object>();
  const uint32_t length = items.Get("length").ToNumber().Uint32Value();
  for (uint32_t i = 0; i < length; ++i) out.push_back(static_cast<int32_t>(whole(items.Get(i), "A token id", std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max())));
  return out;
}

// As whole(), of a property.
inline int64_t whole_or(const Napi::Object& from, const char* key, int64_t fallback, int64_t low, int64_t high) {
  const Napi::Value value = from.Get(key);
  return value.IsUndefined() ? fallback : whole(value, key, low, high);
}

inline double number_or(const Napi::Object& from, const char* key, double fallback, double low, double high) {
  const Napi::Value value = from.Get(key);
  if (value.IsUndefined()) return fallback;
  const double number = number_of(value);
  if (!(number >= low && number <= high)) refuse_number(value, key + format(" must be a number from %g to %g", low, high));
  return number;
}

inline std::string string_or(const Napi::Object& from, const char* key, const std::string& fallback) {
  const Napi::Value value = from.Get(key);
  return value.IsString() ? value.As<Napi::String>().Utf8Value() : fallback;
}

inline std::string string_of(const Napi::Value& value, const char* what) {
  if (!value.IsString()) refuse(value.Env(), std::string(what) + " must be a string.");
  return value.As<Napi::String>().Utf8Value();
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
