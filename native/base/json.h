// A small strict JSON reader for model headers (RFC 8259): the engine builds with nothing but a compiler.
// Input is hostile: depth and the number of values are bounded, strings must be UTF-8, names unique, and
// every error names its offset.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace longview {

class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::map<std::string, Json, std::less<>>;

  Json() = default;
  template <typename T>
  explicit Json(T value) : value_(std::move(value)) {}

  // Throws kFileCorrupt; `what` names the document in the sentence.
  static Json parse(std::string_view text, const std::string& what);

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(value_); }
  // Null where the value is of another kind.
  const Array* array() const { return std::get_if<Array>(&value_); }
  const Object* object() const { return std::get_if<Object>(&value_); }
  const std::string* string() const { return std::get_if<std::string>(&value_); }
  const double* number() const { return std::get_if<double>(&value_); }
  const bool* boolean() const { return std::get_if<bool>(&value_); }

  // Member of an object, or null where this is no object or has no such member.
  const Json* find(std::string_view key) const;
  // This value as an integer, exact up to 2^53; anything else (fractions, larger, no number) is `fallback`.
  int64_t integer_or(int64_t fallback) const;
  // The same of an object's member; a member of another kind counts as absent.
  int64_t integer_or(std::string_view key, int64_t fallback) const;
  double number_or(std::string_view key, double fallback) const;
  bool bool_or(std::string_view key, bool fallback) const;
  std::string string_or(std::string_view key, const std::string& fallback) const;

 private:
  std::variant<std::nullptr_t, bool, double, std::string, Array, Object> value_ = nullptr;
};

}  // namespace longview
