#include "base/json.h"

#include "base/error.h"
#include "check.h"

using namespace longview;

namespace {

Json parse(std::string_view text) {
  return Json::parse(text, "The test");
}

std::string message(std::string_view text) {
  try {
    parse(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST("values of every kind") {
  const Json json = parse(R"( {"a": [1, -2.5e3, true, false, null, "x"], "b": {}, "c": 0} )");
  const Json::Array& items = *json.find("a")->array();
  CHECK(items.size() == 6);
  CHECK(*items[0].number() == 1);
  CHECK(*items[1].number() == -2500);
  CHECK(*items[2].boolean() && !*items[3].boolean());
  CHECK(items[4].is_null());
  CHECK(*items[5].string() == "x");
  CHECK(json.find("b")->object()->empty());
  CHECK(json.find("d") == nullptr);
  CHECK(items[0].find("a") == nullptr);
}

TEST("members with a fallback") {
  const Json json =
      parse(R"({"i": 9007199254740992, "f": 1.5, "big": 1e300, "s": "x", "t": true, "n": null})");
  CHECK(json.integer_or("i", -1) == int64_t{1} << 53);
  CHECK(json.integer_or("f", -1) == -1);
  CHECK(json.integer_or("big", -1) == -1);
  CHECK(json.integer_or("s", -1) == -1);
  CHECK(json.integer_or("n", -1) == -1);
  CHECK(json.integer_or("missing", 7) == 7);
  CHECK(json.number_or("f", 0) == 1.5);
  CHECK(json.string_or("s", "") == "x");
  CHECK(json.string_or("i", "none") == "none");
  CHECK(json.bool_or("t", false));
  CHECK(json.bool_or("i", true));
}

TEST("strings with escapes and UTF-8") {
  CHECK(*parse(R"("\"\\\/\b\f\n\r\t")").string() == "\"\\/\b\f\n\r\t");
  CHECK(*parse(R"("\u0041\u00e9\u5bff\ud83c\udf63")").string() == "Aé寿🍣");
  CHECK(*parse("\"é寿🍣\"").string() == "é寿🍣");
  CHECK(*parse(R"("\ud83c")").string() == "\xef\xbf\xbd");  // a lone surrogate becomes U+FFFD
  CHECK(parse(R"("\u0000")").string()->size() == 1);
}

TEST("what is not JSON is refused") {
  for (const char* text : {"",
                           " ",
                           "{",
                           "}",
                           "[",
                           "[1",
                           "[1,",
                           "[1,]",
                           "[,1]",
                           "{\"a\"}",
                           "{\"a\":}",
                           "{\"a\":1,}",
                           "{a:1}",
                           "{\"a\":1 \"b\":2}",
                           "01",
                           "-",
                           "+1",
                           "1.",
                           ".5",
                           "1e",
                           "1e+",
                           "--1",
                           "0x10",
                           "1e999",
                           "inf",
                           "-inf",
                           "nan",
                           "NaN",
                           "Infinity",
                           "tru",
                           "nulL",
                           "True",
                           "'x'",
                           "\"",
                           "\"\\\"",
                           "\"\\x\"",
                           "\"\\u12\"",
                           "\"\\u12g4\"",
                           "\"\\ud83c\\u0041\"",
                           "\"a\nb\"",
                           "\"\x80\"",
                           "\"\xed\xa0\x80\"",
                           "1 2",
                           "{} x",
                           "{\"a\":1,\"a\":2}",
                           "\xef\xbb\xbf{}",
                           "/* */ 1"})
    if (message(text).empty()) check::fail(__FILE__, __LINE__, std::string("took ") + text);
}

TEST("an error names the document and the place") {
  CHECK(message("[1, x]") == "The test is not valid JSON: unexpected character at byte 4.");
}

TEST("depth and number of values are bounded") {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  CHECK(message(nested(60)).empty());
  CHECK(message(nested(100)).find("deeply") != std::string::npos);
  CHECK(message(std::string(1'000'000, '[')).find("deeply") != std::string::npos);
  std::string many = "[0";
  while (many.size() < 5'000'000) many += ",0";
  CHECK(message(many + "]").find("too many") != std::string::npos);
}

TEST_MAIN()
