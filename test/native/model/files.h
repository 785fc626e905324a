// Files for tests: the project's fixtures, a scratch folder, and the reference tensors of the golden outputs.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "base/half.h"
#include "base/json.h"
#include "check.h"
#include "os/file.h"

namespace files {

inline std::string root() {
  return LONGVIEW_ROOT;
}
inline std::string fixture(const std::string& name) {
  return root() + "/test/fixtures/native/" + name;
}

// Larger golden files lie beside the project where there are any; a clone alone tests what is in the
// fixtures.
inline std::string shared(const std::string& name) {
  const std::string path = root() + "/../shared/" + name;
  if (!std::filesystem::exists(path)) SKIP("there is no ../shared/" + name);
  return path;
}

// Real weights too large for the project, where they have been fetched.
inline std::string test_model(const std::string& name) {
  const auto variable = [](const char* key) { return std::string(std::getenv(key) ? std::getenv(key) : ""); };
  const std::string cache =
      variable("XDG_CACHE_HOME").empty() ? variable("HOME") + "/.cache" : variable("XDG_CACHE_HOME");
  const std::string given = variable("LONGVIEW_TEST_MODELS");
  const std::string path = (given.empty() ? cache + "/longview-test-models" : given) + "/" + name;
  if (!std::filesystem::exists(path)) SKIP("there is no " + path);
  return path;
}

inline std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void write(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

// A folder of its own, removed at the end.
class Scratch {
 public:
  Scratch() {
    const std::string stem = "longview-test-" + std::to_string(longview::os::process_id()) + "-";
    static std::atomic<int> count = 0;
    do folder_ = (std::filesystem::temp_directory_path() / (stem + std::to_string(++count))).string();
    while (!std::filesystem::create_directory(folder_));
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::string path(const std::string& name = "") const {
    return name.empty() ? folder_ : folder_ + "/" + name;
  }
  std::string put(const std::string& name, const std::string& bytes) const {
    write(path(name), bytes);
    return path(name);
  }

 private:
  std::string folder_;
};

// A tensor of a golden output file (safetensors, any type).
struct Reference {
  std::string type;
  std::vector<int64_t> shape;
  std::string bytes;

  template <typename T>
  std::vector<T> values() const {
    std::vector<T> out(bytes.size() / sizeof(T));
    std::memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
    return out;
  }
};

inline std::map<std::string, Reference> references(const std::string& path) {
  const std::string all = read(path);
  const auto length = longview::load<uint64_t>(all.data());
  const longview::Json header = longview::Json::parse(std::string_view(all).substr(8, length), path);
  std::map<std::string, Reference> out;
  for (const auto& [name, entry] : *header.object()) {
    if (name == "__metadata__") continue;
    Reference reference{entry.string_or("dtype", ""), {}, {}};
    for (const longview::Json& extent : *entry.find("shape")->array())
      reference.shape.push_back(extent.integer_or(0));
    const longview::Json::Array& offsets = *entry.find("data_offsets")->array();
    const auto begin = static_cast<size_t>(offsets[0].integer_or(0)),
               end = static_cast<size_t>(offsets[1].integer_or(0));
    reference.bytes = all.substr(8 + length + begin, end - begin);
    out.emplace(name, std::move(reference));
  }
  return out;
}

}  // namespace files
