#include <algorithm>

#include "base/error.h"
#include "check.h"
#include "model/builders.h"
#include "model/files.h"
#include "model/model_file.h"

using namespace longview;
using builders::bytes_of;
using builders::Gguf;
using builders::tiny_gguf;

namespace {

const files::Scratch scratch;

std::shared_ptr<const ModelFile> open(const std::string& bytes) {
  return ModelFile::open(scratch.put("model.gguf", bytes));
}
std::shared_ptr<const ModelFile> open(const Gguf& gguf) {
  return open(gguf.build());
}

std::string message(const std::string& path) {
  try {
    ModelFile::open(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// A file with one metadata value and nothing else.
std::string with_value(uint32_t type, const std::string& bytes) {
  Gguf gguf;
  gguf.set("key", type, bytes);
  return gguf.build();
}

std::string array(uint32_t type, uint64_t count, const std::string& items) {
  return bytes_of(type) + bytes_of(count) + items;
}

}  // namespace

TEST("tensors lie where the table says") {
  Gguf gguf = tiny_gguf();
  gguf.tensor("blk.0.attn_k.weight").bytes[5] = 'k';
  const auto file = open(gguf);
  CHECK(file->format() == ModelFile::Format::kGguf);
  CHECK(file->tensors().size() == gguf.tensors.size());
  const StoredTensor& k = *file->find("blk.0.attn_k.weight");
  CHECK((k.shape == std::vector<int64_t>{16, 32}));
  CHECK(k.view.rows == 16 && k.view.cols == 32 && k.view.bytes == 16 * 32 * 4);
  CHECK(k.stored_type == "F32");
  CHECK(static_cast<char>(k.view.data[5]) == 'k');
  CHECK(file->find("nothing") == nullptr);
  CHECK(file->parts().size() == 1);
  CHECK(file->parts()[0].header_bytes % 32 == 0);
}

TEST("metadata of every type") {
  Gguf g;
  g.set("u8", 0, bytes_of<uint8_t>(200))
      .set("i8", 1, bytes_of<int8_t>(-3))
      .set("u16", 2, bytes_of<uint16_t>(65535));
  g.set("i16", 3, bytes_of<int16_t>(-300))
      .set_u32("u32", 4'000'000'000u)
      .set("i32", 5, bytes_of<int32_t>(-70000));
  g.set_f32("f32", 0.5f).set("bool", 7, std::string(1, '\1')).set_string("str", "text");
  g.set("u64", 10, bytes_of<uint64_t>(UINT64_MAX))
      .set("i64", 11, bytes_of<int64_t>(INT64_MIN))
      .set("f64", 12, bytes_of(1e100));
  g.set_strings("strs", {"a", "", "寿"}).set_i32s("i32s", {1, -2});
  g.set("f32s", 9, array(6, 2, bytes_of(1.5f) + bytes_of(-1.0f)))
      .set("bools", 9, array(7, 2, std::string("\0\1", 2)));
  g.set("u64s", 9, array(10, 1, bytes_of<uint64_t>(UINT64_MAX)));
  g.set("nested", 9, array(9, 2, array(4, 1, bytes_of<uint32_t>(7)) + array(8, 0, "")));
  const auto file = open(g);
  const Metadata& m = file->metadata();
  CHECK(std::get<int64_t>(m.at("u8")) == 200);
  CHECK(std::get<int64_t>(m.at("i8")) == -3);
  CHECK(std::get<int64_t>(m.at("u16")) == 65535);
  CHECK(std::get<int64_t>(m.at("i16")) == -300);
  CHECK(std::get<int64_t>(m.at("u32")) == 4'000'000'000);
  CHECK(std::get<int64_t>(m.at("i32")) == -70000);
  CHECK(std::get<double>(m.at("f32")) == 0.5);
  CHECK(std::get<bool>(m.at("bool")));
  CHECK(std::get<std::string>(m.at("str")) == "text");
  CHECK(std::get<uint64_t>(m.at("u64")) == UINT64_MAX);
  CHECK(std::get<int64_t>(m.at("i64")) == INT64_MIN);
  CHECK(std::get<double>(m.at("f64")) == 1e100);
  CHECK((std::get<std::vector<std::string>>(m.at("strs")) == std::vector<std::string>{"a", "", "寿"}));
  CHECK((std::get<std::vector<int64_t>>(m.at("i32s")) == std::vector<int64_t>{1, -2}));
  CHECK((std::get<std::vector<double>>(m.at("f32s")) == std::vector<double>{1.5, -1}));
  CHECK((std::get<std::vector<bool>>(m.at("bools")) == std::vector<bool>{false, true}));
  CHECK((std::get<std::vector<uint64_t>>(m.at("u64s")) == std::vector<uint64_t>{UINT64_MAX}));
  const auto& nested = std::get<std::vector<MetadataValue>>(m.at("nested"));
  CHECK(std::get<std::vector<int64_t>>(nested.at(0)).at(0) == 7);
  CHECK(std::get<std::vector<std::string>>(nested.at(1)).empty());

  CHECK(file->integer_or("u64", 0) == INT64_MAX);
  CHECK(file->integer_or("missing", -1) == -1);
  CHECK(file->number_or("i8", 0) == -3);
  CHECK(file->number_or("missing", 2) == 2);
  CHECK(file->string_or("str", "") == "text");
  CHECK(file->string_or("missing", "none") == "none");
  CHECK_THROWS(file->integer_or("str", 1), kFileCorrupt);
  CHECK_THROWS(file->integer_or("f32", 1), kFileCorrupt);
  CHECK_THROWS(file->number_or("strs", 1), kFileCorrupt);
  CHECK_THROWS(file->string_or("u8", ""), kFileCorrupt);
}

TEST("version 2 reads like version 3; others and foreign files are named") {
  Gguf gguf = tiny_gguf();
  gguf.version = 2;
  CHECK(open(gguf)->tensors().size() == gguf.tensors.size());
  for (const uint32_t version : {0u, 1u, 4u, 0x03000000u}) {
    gguf.version = version;
    CHECK_THROWS(open(gguf), kUnknownFormat);
  }
  CHECK(message(scratch.path("model.gguf")).find("big-endian") != std::string::npos);
  CHECK_THROWS(open(std::string("GGML and more")), kUnknownFormat);
  CHECK_THROWS(open(std::string("<!DOCTYPE html>")), kUnknownFormat);
  CHECK_THROWS(open(std::string("GG")), kUnknownFormat);
  CHECK(message(scratch.put("pointer.gguf", "version https://git-lfs.github.com/spec/v1\n"))
            .find("git lfs pull") != std::string::npos);
}

TEST("a file cut at any byte of its header is refused, and in its data too") {
  const std::string whole = tiny_gguf().build();
  const auto header = static_cast<size_t>(open(whole)->parts()[0].header_bytes);
  for (size_t size = 1; size < header; ++size) {
    const std::string sentence = message(scratch.put("cut.gguf", whole.substr(0, size)));
    if (sentence.empty())
      check::fail(__FILE__, __LINE__, "took the first " + std::to_string(size) + " bytes");
  }
  CHECK_THROWS(open(whole.substr(0, whole.size() - 1000)), kFileTruncated);
  CHECK(message(scratch.path("model.gguf")).find("cut off") != std::string::npos);
}

TEST("counts beyond the file are refused before memory is taken") {
  for (const uint64_t count : {uint64_t{1} << 20, uint64_t{1} << 40, UINT64_MAX}) {
    std::string bytes = tiny_gguf().build();
    bytes.replace(8, 8, bytes_of(count));
    CHECK_THROWS(open(bytes), kFileCorrupt);
    bytes = tiny_gguf().build();
    bytes.replace(16, 8, bytes_of(count));
    CHECK_THROWS(open(bytes), kFileCorrupt);
    for (const uint32_t type : {0u, 4u, 6u, 7u, 8u, 9u, 10u})
      CHECK_THROWS(open(with_value(9, array(type, count, "0123456789"))), kFileCorrupt);
  }
  CHECK_THROWS(open(with_value(8, bytes_of<uint64_t>(UINT64_MAX) + "x")), kFileCorrupt);
  CHECK_THROWS(open(with_value(8, bytes_of<uint64_t>(1000) + "x")), kFileTruncated);
}

TEST("a sparse file cannot make the reader take memory for its holes") {
  const std::string path = scratch.put("sparse.gguf", with_value(9, array(8, uint64_t{1} << 31, "")));
  std::filesystem::resize_file(path, uintmax_t{1} << 36);
  CHECK_THROWS(ModelFile::open(path), kFileCorrupt);
}

TEST("malformed metadata is refused") {
  CHECK_THROWS(open(with_value(13, "xxxxxxxx")), kFileCorrupt);
  CHECK_THROWS(open(with_value(9, array(13, 1, "xxxxxxxx"))), kFileCorrupt);
  std::string deep = array(4, 0, "");
  for (int i = 0; i < 10; ++i) deep = array(9, 1, deep);
  CHECK_THROWS(open(with_value(9, deep)), kFileCorrupt);
  Gguf twice = tiny_gguf();
  twice.values.push_back(twice.values[0]);
  CHECK_THROWS(open(twice), kFileCorrupt);
  Gguf long_key;
  long_key.set_u32(std::string(70000, 'k'), 1);
  CHECK_THROWS(open(long_key), kFileCorrupt);
}

TEST("malformed tensors are refused") {
  const auto refused = [](const std::vector<uint64_t>& dims, uint32_t type = 0) {
    Gguf gguf = tiny_gguf();
    gguf.add("extra", dims, type, 64);
    CHECK_THROWS(open(gguf), kFileCorrupt);
  };
  refused({});
  refused({1, 1, 1, 1, 1});
  refused({0});
  refused({UINT64_MAX});
  refused({uint64_t{1} << 40, uint64_t{1} << 40});
  refused({uint64_t{1} << 32, uint64_t{1} << 32});
  refused({33}, 8);       // Q8_0 has blocks of 32
  refused({128, 2}, 12);  // Q4_K has blocks of 256

  Gguf twice = tiny_gguf();
  twice.add("output_norm.weight", {32});
  CHECK_THROWS(open(twice), kFileCorrupt);
}

TEST("alignment is a power of two and offsets keep to it") {
  for (const uint32_t alignment : {0u, 3u, 24u, 1u << 20}) {
    Gguf gguf = tiny_gguf();
    gguf.set_u32("general.alignment", alignment);
    CHECK_THROWS(open(gguf), kFileCorrupt);
  }
  for (const uint32_t alignment : {8u, 64u, 4096u}) {
    Gguf gguf = tiny_gguf();
    gguf.set_u32("general.alignment", alignment).alignment = alignment;
    gguf.tensor("output_norm.weight").bytes[0] = 'n';
    CHECK(static_cast<char>(open(gguf)->find("output_norm.weight")->view.data[0]) == 'n');
  }
  Gguf loose = tiny_gguf();
  loose.set_u32("general.alignment", 4096);  // but the offsets are multiples of 32
  CHECK_THROWS(open(loose), kFileCorrupt);
}

TEST("tensors that share bytes are refused") {
  std::string bytes = tiny_gguf().build();
  const std::string name = "output_norm.weight";
  const size_t info = bytes.find(name) + name.size() + 4 + 8 + 4;
  bytes.replace(info, 8, bytes_of<uint64_t>(0));
  CHECK_THROWS(open(bytes), kFileCorrupt);
  bytes.replace(info, 8, bytes_of<uint64_t>(uint64_t{1} << 60));
  CHECK_THROWS(open(bytes), kFileTruncated);
}

TEST("a type that the engine does not read gives an empty view with its name") {
  Gguf gguf = tiny_gguf();
  gguf.add("extra", {256}, 18, 98);
  const auto file = open(gguf);
  CHECK(file->find("extra")->view.empty());
  CHECK(file->find("extra")->stored_type == "IQ3_XXS");
}

TEST("a split model opens by any of its parts") {
  const Gguf whole = tiny_gguf();
  Gguf parts[3];
  parts[0].values = whole.values;
  for (size_t i = 0; i < 3; ++i) {
    parts[i]
        .set("split.no", 2, bytes_of(static_cast<uint16_t>(i)))
        .set("split.count", 2, bytes_of<uint16_t>(3));
    parts[i].set("split.tensors.count", 5, bytes_of(static_cast<int32_t>(whole.tensors.size())));
  }
  for (size_t i = 0; i < whole.tensors.size(); ++i) parts[1 + i % 2].tensors.push_back(whole.tensors[i]);
  const auto path = [&](int i) { return scratch.path("big-0000" + std::to_string(i) + "-of-00003.gguf"); };
  const auto put = [&] {
    for (int i = 0; i < 3; ++i) files::write(path(i + 1), parts[i].build());
  };
  put();
  for (int i = 1; i <= 3; ++i) {
    const auto file = ModelFile::open(path(i));
    CHECK(file->tensors().size() == whole.tensors.size());
    CHECK(file->parts().size() == 3);
    CHECK(file->parts()[0].file->path() == path(1));
    CHECK(file->string_or("general.architecture", "") == "llama");
  }

  std::filesystem::rename(path(3), scratch.path("elsewhere"));
  CHECK_THROWS(ModelFile::open(path(1)), kFileNotFound);
  CHECK(message(path(1)).find(path(3)) != std::string::npos);
  files::write(path(3), parts[1].build());  // the second part under the third's name
  CHECK_THROWS(ModelFile::open(path(1)), kFileCorrupt);
  put();
  std::filesystem::rename(path(1), scratch.path("renamed.gguf"));
  CHECK_THROWS(ModelFile::open(scratch.path("renamed.gguf")), kFileCorrupt);
  parts[2].tensors.pop_back();
  put();
  CHECK_THROWS(ModelFile::open(path(1)), kFileCorrupt);
}

TEST("more parts than names can count are damage: nobody lists them") {
  Gguf gguf = tiny_gguf();
  gguf.set_u32("split.count", 100'000);
  const std::string path = scratch.path("m-00001-of-100000.gguf");
  files::write(path, gguf.build());
  CHECK_THROWS(ModelFile::open(path), kFileCorrupt);
}

TEST("names from the file are made printable in sentences") {
  Gguf gguf = tiny_gguf();
  gguf.add("evil\n\x1b[31m", {0}, 0, 64);
  CHECK(message(scratch.put("evil.gguf", gguf.build())).find("evil??[31m") != std::string::npos);
}

TEST("paths that are none") {
  CHECK_THROWS(ModelFile::open(""), kInvalidArgument);
  CHECK_THROWS(ModelFile::open(std::string("a\0b", 3)), kInvalidArgument);
  CHECK_THROWS(ModelFile::open(scratch.path("missing.gguf")), kFileNotFound);
}

TEST_MAIN()
