// A test program in one header, so that the engine's tests build by CMake alone, anywhere:
// TEST("name") { CHECK(...); } any number of times, then TEST_MAIN().
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <string>
#include <vector>

namespace check {

struct Case {
  const char* name;
  std::function<void()> body;
};
inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}
inline int& failures() {
  static int count = 0;
  return count;
}
struct Registration {
  Registration(const char* name, std::function<void()> body) { cases().push_back({name, std::move(body)}); }
};
struct Skip {
  std::string why;
};

inline void fail(const char* file, int line, const std::string& what) {
  std::printf("  %s:%d: %s\n", file, line, what.c_str());
  ++failures();
}

// Exit code: 0 all passed, 1 some failed, 77 (ctest's "skipped") when every case was skipped.
inline int run(int argc, char** argv) {
  int passed = 0, failed = 0, skipped = 0;
  for (const Case& test : cases()) {
    if (argc > 1 && std::strstr(test.name, argv[1]) == nullptr) continue;
    const int before = failures();
    try {
      test.body();
    } catch (const Skip& skip) {
      std::printf("skipped %s: %s\n", test.name, skip.why.c_str());
      ++skipped;
      continue;
    } catch (const std::exception& error) {
      fail(test.name, 0, std::string("threw: ") + error.what());
    }
    const bool ok = failures() == before;
    std::printf("%s %s\n", ok ? "ok     " : "FAILED ", test.name);
    ok ? ++passed : ++failed;
  }
  std::printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
  return failed > 0 ? 1 : passed == 0 && skipped > 0 ? 77 : 0;
}

}  // namespace check

#define CHECK_JOIN_(a, b) a##b
#define CHECK_JOIN(a, b) CHECK_JOIN_(a, b)
#define TEST(name)                                                                                   \
  static void CHECK_JOIN(test_, __LINE__)();                                                         \
  static const check::Registration CHECK_JOIN(registration_, __LINE__)(name, CHECK_JOIN(test_, __LINE__)); \
  static void CHECK_JOIN(test_, __LINE__)()
#define CHECK(condition) \
  do {                   \
    if (!(condition)) check::fail(__FILE__, __LINE__, "CHECK(" #condition ")"); \
  } while (false)
#define CHECK_NEAR(a, b, tolerance)                                                                \
  do {                                                                                             \
    const double left_ = static_cast<double>(a), right_ = static_cast<double>(b);                  \
    if (!(std::fabs(left_ - right_) <= (tolerance)))                                               \
      check::fail(__FILE__, __LINE__, #a " = " + std::to_string(left_) + ", " #b " = " + std::to_string(right_)); \
  } while (false)
// The expression must throw longview::Error with the given code.
#define CHECK_THROWS(expression, expected)                                                    \
  do {                                                                                        \
    bool thrown_ = false;                                                                     \
    try {                                                                                     \
      (void)(expression);                                                                     \
    } catch (const ::longview::Error& error_) {                                               \
      thrown_ = true;                                                                         \
      if (error_.code != ::longview::ErrorCode::expected)                                     \
        check::fail(__FILE__, __LINE__, std::string(#expression " threw ") + ::longview::name(error_.code) + ": " + error_.what()); \
    }                                                                                         \
    if (!thrown_) check::fail(__FILE__, __LINE__, #expression " did not throw " #expected);   \
  } while (false)
#define SKIP(why) throw check::Skip { why }
#define TEST_MAIN() \
  int main(int argc, char** argv) { return check::run(argc, argv); }
