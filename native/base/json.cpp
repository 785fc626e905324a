#include "base/json.h"

#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/text.h"

namespace longview {
namespace {

constexpr int kMaxDepth = 64;
// A value costs more memory than text; the header of a model with 100,000 tensors has under a million.
constexpr int64_t kMaxValues = 2'000'000;

class Parser {
 public:
  Parser(std::string_view text, const std::string& what) : text_(text), what_(what) {}

  Json document() {
    Json value = parse_value(0);
    skip_space();
    if (at_ != text_.size()) fail("text after the end");
    return value;
  }

 private:
  [[noreturn]] void fail(const char* problem) const {
    LONGVIEW_THROW(kFileCorrupt, "%s is not valid JSON: %s at byte %zu.", what_.c_str(), problem, at_);
  }

  void skip_space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r'))
      ++at_;
  }
  char peek() {
    skip_space();
    if (at_ >= text_.size()) fail("unexpected end");
    return text_[at_];
  }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) fail("unexpected character");
  }
  Json literal(std::string_view word, Json value) {
    if (text_.substr(at_, word.size()) != word) fail("unknown word");
    at_ += word.size();
    return value;
  }

  Json parse_value(int depth) {
    if (depth > kMaxDepth) fail("nested too deeply");
    if (++values_ > kMaxValues) fail("too many values");
    switch (peek()) {
      case '{': return parse_object(depth);
      case '[': return parse_array(depth);
      case '"': return Json(parse_string());
      case 't': return literal("true", Json(true));
      case 'f': return literal("false", Json(false));
      case 'n': return literal("null", Json());
      default: return parse_number();
    }
  }

  Json parse_object(int depth) {
    expect('{');
    Json::Object members;
    if (take('}')) return Json(std::move(members));
    do {
      if (peek() != '"') fail("a member needs a name");
      std::string key = parse_string();
      expect(':');
      if (!members.emplace(std::move(key), parse_value(depth + 1)).second) fail("a name stands twice");
    } while (take(','));
    expect('}');
    return Json(std::move(members));
  }

  Json parse_array(int depth) {
    expect('[');
    Json::Array items;
    if (take(']')) return Json(std::move(items));
    do items.push_back(parse_value(depth + 1));
    while (take(','));
    expect(']');
    return Json(std::move(items));
  }

  bool is_digit() const { return at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; }
  void digits() {
    if (!is_digit()) fail("a digit is missing");
    while (is_digit()) ++at_;
  }
  bool next_is(char c) const { return at_ < text_.size() && text_[at_] == c; }

  // Walks the grammar itself: the library's conversion also takes "01", "1." and "inf".
  Json parse_number() {
    const size_t start = at_;
    if (next_is('-'))
      ++at_;
    else if (!is_digit())
      fail("unexpected character");
    if (next_is('0'))
      ++at_;
    else
      digits();
    if (next_is('.')) ++at_, digits();
    if (next_is('e') || next_is('E')) {
      ++at_;
      if (next_is('+') || next_is('-')) ++at_;
      digits();
    }
    double value = 0;
    const auto [end, error] = std::from_chars(text_.data() + start, text_.data() + at_, value);
    if (error != std::errc() || end != text_.data() + at_ || !std::isfinite(value))
      fail("a number is out of range");
    return Json(value);
  }

  uint32_t hex4() {
    if (text_.size() - at_ < 4) fail("unexpected end");
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + at_ + 4, value, 16);
    if (error != std::errc() || end != text_.data() + at_ + 4) fail("bad \\u escape");
    at_ += 4;
    return value;
  }

  void append_utf8(std::string& out, uint32_t code) {
    if (code < 0x80) {
      out += static_cast<char>(code);
    } else if (code < 0x800) {
      out += static_cast<char>(0xc0 | (code >> 6));
      out += static_cast<char>(0x80 | (code & 63));
    } else if (code < 0x10000) {
      out += static_cast<char>(0xe0 | (code >> 12));
      out += static_cast<char>(0x80 | ((code >> 6) & 63));
      out += static_cast<char>(0x80 | (code & 63));
    } else {
      out += static_cast<char>(0xf0 | (code >> 18));
      out += static_cast<char>(0x80 | ((code >> 12) & 63));
      out += static_cast<char>(0x80 | ((code >> 6) & 63));
      out += static_cast<char>(0x80 | (code & 63));
    }
  }

  void escape(std::string& out) {
    if (at_ >= text_.size()) fail("unexpected end");
    switch (text_[at_++]) {
      case '"': out += '"'; return;
      case '\\': out += '\\'; return;
      case '/': out += '/'; return;
      case 'b': out += '\b'; return;
      case 'f': out += '\f'; return;
      case 'n': out += '\n'; return;
      case 'r': out += '\r'; return;
      case 't': out += '\t'; return;
      case 'u': {
        uint32_t code = hex4();
        if (code >= 0xd800 && code < 0xdc00 && text_.substr(at_, 2) == "\\u") {
          at_ += 2;
          const uint32_t low = hex4();
          if (low < 0xdc00 || low > 0xdfff) fail("bad surrogate pair");
          code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        } else if (code >= 0xd800 && code < 0xe000) {
          code = 0xfffd;
        }
        append_utf8(out, code);
        return;
      }
      default: fail("unknown escape");
    }
  }

  std::string parse_string() {
    expect('"');
    std::string out;
    while (true) {
      if (at_ >= text_.size()) fail("a string has no end");
      const char c = text_[at_];
      if (c == '"') break;
      if (static_cast<unsigned char>(c) < 0x20) fail("control character in a string");
      if (c == '\\') {
        ++at_;
        escape(out);
        continue;
      }
      const size_t length = utf8_length(text_.substr(at_, 4));
      if (length == 0) fail("a string is not UTF-8");
      out += text_.substr(at_, length);
      at_ += length;
    }
    ++at_;
    return out;
  }

  std::string_view text_;
  const std::string& what_;
  size_t at_ = 0;
  int64_t values_ = 0;
};

}  // namespace

Json Json::parse(std::string_view text, const std::string& what) {
  return Parser(text, what).document();
}

const Json* Json::find(std::string_view key) const {
  const Object* members = object();
  if (!members) return nullptr;
  const auto found = members->find(key);
  return found == members->end() ? nullptr : &found->second;
}

int64_t Json::integer_or(int64_t fallback) const {
  const double* value = number();
  if (!value || std::fabs(*value) > 0x1p53 || *value != std::floor(*value)) return fallback;
  return static_cast<int64_t>(*value);
}

int64_t Json::integer_or(std::string_view key, int64_t fallback) const {
  const Json* member = find(key);
  return member ? member->integer_or(fallback) : fallback;
}

double Json::number_or(std::string_view key, double fallback) const {
  const Json* member = find(key);
  const double* value = member ? member->number() : nullptr;
  return value ? *value : fallback;
}

bool Json::bool_or(std::string_view key, bool fallback) const {
  const Json* member = find(key);
  const bool* value = member ? member->boolean() : nullptr;
  return value ? *value : fallback;
}

std::string Json::string_or(std::string_view key, const std::string& fallback) const {
  const Json* member = find(key);
  const std::string* value = member ? member->string() : nullptr;
  return value ? *value : fallback;
}

}  // namespace longview
