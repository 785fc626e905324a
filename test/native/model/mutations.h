// Damaged copies of a model, the same ones on every machine: what a bad download, a bad disk or someone's
// hand makes of a file. Walks the headers to aim at counts, lengths, offsets and types; a byte flipped
// anywhere in a model is nearly always a weight.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "base/half.h"
#include "model/builders.h"
#include "model/files.h"

namespace mutations {

// splitmix64: the same numbers with every compiler.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  size_t below(size_t limit) { return limit == 0 ? 0 : static_cast<size_t>(next() % limit); }
  template <typename List>
  const auto& pick(const List& list) {
    return list[below(std::size(list))];
  }

 private:
  uint64_t state_;
};

// A number in a binary header.
struct Field {
  size_t at;
  size_t size;  // bytes
};

// The numbers of a GGUF header, and where it ends. Lengths and counts are kept apart: nearly every change to
// one of them ends at the next read, and the checks behind would see nothing.
struct GgufMap {
  std::vector<Field> values, lengths;
  size_t header_bytes = 0;
};

inline GgufMap map_gguf(const std::string& bytes) {
  GgufMap map;
  size_t at = 0;
  const auto read = [&](size_t size, std::vector<Field>& fields) {
    fields.push_back({at, size});
    uint64_t value = 0;
    std::memcpy(&value, bytes.data() + at, size);
    at += size;
    return value;
  };
  const auto number = [&](size_t size) { return read(size, map.values); };
  const auto length = [&](size_t size) { return read(size, map.lengths); };
  const auto text = [&] { at += static_cast<size_t>(length(8)); };
  static constexpr size_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  const std::function<void(uint64_t)> value = [&](uint64_t type) {
    if (type == 8) return text();
    if (type != 9) return void(number(kSizes[type]));
    const uint64_t item = length(4), count = length(8);
    for (uint64_t i = 0; i < count; ++i) {
      if (i < 4 || item == 8)
        value(item);  // of a long list only the first numbers
      else
        at += kSizes[item];
    }
  };
  length(4);
  length(4);
  const uint64_t tensors = length(8), values = length(8);
  for (uint64_t i = 0; i < values; ++i) {
    text();
    value(length(4));
  }
  for (uint64_t i = 0; i < tensors; ++i) {
    text();
    const uint64_t dims = length(4);
    for (uint64_t d = 0; d < dims; ++d) number(8);
    number(4);
    number(8);
  }
  map.header_bytes = at;
  return map;
}

inline uint64_t strange_number(Random& random, uint64_t old, uint64_t file_size) {
  const uint64_t choices[] = {0,
                              1,
                              2,
                              old + 1,
                              old - 1,
                              old * 2,
                              old ^ (uint64_t{1} << random.below(64)),
                              0x7f,
                              0xff,
                              0xffff,
                              0x7fffffff,
                              0x80000000,
                              0xffffffff,
                              uint64_t{1} << 32,
                              uint64_t{1} << 62,
                              uint64_t{1} << 63,
                              UINT64_MAX,
                              UINT64_MAX - 31,
                              file_size,
                              file_size - 1,
                              file_size + 1,
                              random.below(64),
                              random.next()};
  return random.pick(choices);
}

// Damage that fits any file: cut, flipped, moved, lost and inserted bytes among the first `header` (and a few
// after).
inline std::string damage_bytes(Random& random, std::string& bytes, size_t header) {
  const size_t reach = std::min(bytes.size(), header + 64);
  const size_t at = random.below(reach);
  switch (random.below(6)) {
    case 0:
      bytes.resize(random.below(2) ? at : random.below(bytes.size()));
      return "cut to " + std::to_string(bytes.size());
    case 1:
      for (size_t i = 0, count = 1 + random.below(8); i < count; ++i)
        bytes[random.below(reach)] ^= static_cast<char>(1 << random.below(8));
      return "bits flipped";
    case 2: bytes.erase(at, 1 + random.below(16)); return "bytes lost at " + std::to_string(at);
    case 3:
      bytes.insert(at, std::string(1 + random.below(16), static_cast<char>(random.next())));
      return "bytes inserted at " + std::to_string(at);
    case 4: {
      const size_t from = random.below(reach),
                   size = std::min({random.below(64) + 1, reach - at, reach - from});
      bytes.replace(at, size, bytes.substr(from, size));
      return "bytes of " + std::to_string(from) + " at " + std::to_string(at);
    }
    default:
      for (size_t i = at; i < std::min(reach, at + 32); ++i) bytes[i] = static_cast<char>(random.next());
      return "noise at " + std::to_string(at);
  }
}

inline std::string damage_gguf(Random& random, std::string& bytes, const GgufMap& map) {
  if (random.below(4) == 0) return damage_bytes(random, bytes, map.header_bytes);
  std::string what;
  for (size_t i = 0, count = random.below(3) == 0 ? 2 : 1; i < count; ++i) {
    const Field field = random.pick(random.below(3) == 0 ? map.lengths : map.values);
    uint64_t old = 0;
    std::memcpy(&old, bytes.data() + field.at, field.size);
    const uint64_t now = strange_number(random, old, bytes.size());
    std::memcpy(bytes.data() + field.at, &now, field.size);
    what += "number at " + std::to_string(field.at) + ": " + std::to_string(old) + " -> " +
            std::to_string(now) + "; ";
  }
  return what;
}

// Damage to JSON text that mostly leaves it JSON: numbers, words, members and brackets.
inline std::string damage_json(Random& random, std::string& text) {
  static const std::vector<std::string> kValues = {"0",
                                                   "-1",
                                                   "1",
                                                   "2",
                                                   "3",
                                                   "1e9",
                                                   "2147483648",
                                                   "9007199254740993",
                                                   "1e308",
                                                   "-1e308",
                                                   "0.5",
                                                   "1e-320",
                                                   "null",
                                                   "true",
                                                   "\"\"",
                                                   "[]",
                                                   "{}",
                                                   "[0]",
                                                   "\"F64\"",
                                                   "\"I8\"",
                                                   "\"F16\"",
                                                   "[1,2,3,4]",
                                                   "[0,-1]",
                                                   "\"yarn\"",
                                                   "99999",
                                                   "33",
                                                   "1.5",
                                                   "false",
                                                   "\"x\"",
                                                   "[[[[[[[[1]]]]]]]]",
                                                   "{\"type\":\"yarn\"}"};
  if (random.below(6) == 0) return "JSON: " + damage_bytes(random, text, text.size());
  // Plain values only: after a colon, an opening bracket or a comma, but no name and no object.
  std::vector<size_t> starts;
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    const size_t next = text.find_first_not_of(" \n", i + 1);
    if (next == std::string::npos) break;
    const bool plain = text[next] != '{' && text[next] != '[' && (text[i] != ',' || text[next] != '"');
    if (plain && (text[i] == ':' || text[i] == ',' || text[i] == '[')) starts.push_back(i + 1);
  }
  if (starts.empty()) return "nothing";
  const size_t at = random.pick(starts);
  size_t end = text.find_first_of(",]}", at);
  if (end == std::string::npos) end = text.size();
  const std::string old = text.substr(at, end - at);
  const size_t kind = random.below(6);
  const std::string now = kind == 0   ? ""
                          : kind == 1 ? old + "," + old
                          : kind == 2 ? old + "0"
                                      : random.pick(kValues);
  text.replace(at, end - at, now);
  return "JSON at " + std::to_string(at) + ": " + old + " -> " + now;
}

// Calls body(path, what was done) for `count` damaged copies of a GGUF file.
inline void each_gguf(const std::string& bytes, int count, uint64_t seed,
                      const std::function<void(const std::string&, const std::string&)>& body) {
  const files::Scratch scratch;
  const GgufMap map = map_gguf(bytes);
  for (int i = 0; i < count; ++i) {
    Random random(seed + static_cast<uint64_t>(i));
    std::string copy = bytes;
    const std::string what = damage_gguf(random, copy, map);
    body(scratch.put("model.gguf", copy), std::to_string(i) + ": " + what);
  }
}

// The same for a folder with config.json and model.safetensors: damages its config, its header's text or its
// bytes.
inline void each_safetensors(const std::string& config, const std::string& model, int count, uint64_t seed,
                             const std::function<void(const std::string&, const std::string&)>& body) {
  const files::Scratch scratch;
  const auto header_bytes = static_cast<size_t>(longview::load<uint64_t>(model.data()));
  for (int i = 0; i < count; ++i) {
    Random random(seed + static_cast<uint64_t>(i));
    std::string new_config = config, new_model = model, what;
    switch (random.below(8)) {
      case 0:
      case 1:
      case 2: what = "config: " + damage_json(random, new_config); break;
      case 3: what = "file: " + damage_bytes(random, new_model, 8 + header_bytes); break;
      case 4: {
        const uint64_t length = strange_number(random, header_bytes, model.size());
        std::memcpy(new_model.data(), &length, 8);
        what = "header length " + std::to_string(length);
        break;
      }
      default: {
        std::string header = model.substr(8, header_bytes);
        what = "header: " + damage_json(random, header);
        new_model = builders::Safetensors::with_header(header, model.substr(8 + header_bytes));
      }
    }
    scratch.put("config.json", new_config);
    scratch.put("model.safetensors", new_model);
    body(scratch.path(), std::to_string(i) + ": " + what);
  }
}

}  // namespace mutations
