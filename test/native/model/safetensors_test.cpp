#include <sys/stat.h>

#include "base/error.h"
#include "check.h"
#include "model/builders.h"
#include "model/files.h"
#include "model/model_file.h"

using namespace longview;
using builders::bytes_of;
using builders::Safetensors;
using builders::tiny_safetensors;

namespace {

const files::Scratch scratch;

// A folder with the model and a config.json that only the configuration's reader would mind.
std::string folder(const std::string& name, const std::string& model) {
  std::filesystem::create_directories(scratch.path(name));
  files::write(scratch.path(name + "/config.json"), "{}");
  files::write(scratch.path(name + "/model.safetensors"), model);
  return scratch.path(name);
}

std::shared_ptr<const ModelFile> open(const std::string& bytes) {
  return ModelFile::open(folder("model", bytes));
}

std::shared_ptr<const ModelFile> open_entry(const std::string& entry, const std::string& data) {
  return open(Safetensors::with_header("{\"t\":" + entry + "}", data));
}

std::string message(const std::string& path) {
  try {
    ModelFile::open(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST("tensors lie where the header says, by folder and by file") {
  Safetensors s = tiny_safetensors();
  s.tensors[3].bytes[1] = 'x';
  const std::string path = folder("whole", s.build());
  for (const std::string& way : {path, path + "/", path + "/model.safetensors"}) {
    const auto file = ModelFile::open(way);
    CHECK(file->format() == ModelFile::Format::kSafetensors);
    CHECK(file->tensors().size() == s.tensors.size());
    const StoredTensor& tensor = *file->find(s.tensors[3].name);
    CHECK(tensor.shape == s.tensors[3].shape);
    CHECK(tensor.stored_type == "BF16" && tensor.view.type == DType::kBF16);
    CHECK(static_cast<char>(tensor.view.data[1]) == 'x');
    CHECK(file->config().object());
    CHECK(file->parts().size() == 2);
  }
}

TEST("sharded models follow their index") {
  const Safetensors whole = tiny_safetensors();
  Safetensors shards[2];
  std::string map;
  for (size_t i = 0; i < whole.tensors.size(); ++i) {
    shards[i % 2].tensors.push_back(whole.tensors[i]);
    map += i ? "," : "";
    map += '"' + whole.tensors[i].name + "\":\"part-" + std::to_string(i % 2) + ".safetensors\"";
  }
  const std::string path = folder("sharded", "unused");
  std::filesystem::remove(path + "/model.safetensors");
  const auto put_index = [&](const std::string& text) {
    files::write(path + "/model.safetensors.index.json", text);
  };
  put_index(R"({"metadata":{},"weight_map":{)" + map + "}}");
  for (int i = 0; i < 2; ++i)
    files::write(path + "/part-" + std::to_string(i) + ".safetensors", shards[i].build());
  CHECK(ModelFile::open(path)->tensors().size() == whole.tensors.size());
  CHECK(ModelFile::open(path)->parts().size() == 3);

  std::filesystem::rename(path + "/part-1.safetensors", path + "/away");
  CHECK_THROWS(ModelFile::open(path), kFileNotFound);
  CHECK(message(path).find("part-1.safetensors") != std::string::npos);
  for (const char* bad :
       {"{}", R"({"weight_map":[]})", R"({"weight_map":{}})", R"({"weight_map":{"t":1}})",
        R"({"weight_map":{"t":"../part-0.safetensors"}})", R"({"weight_map":{"t":"/etc/passwd"}})",
        R"({"weight_map":{"t":".."}})", R"({"weight_map":{"t":"config.json"}})", "["}) {
    put_index(bad);
    CHECK_THROWS(ModelFile::open(path), kFileCorrupt);
  }
}

TEST("folders without a model say what is missing") {
  CHECK_THROWS(ModelFile::open(scratch.path("no-such.safetensors")), kFileNotFound);
  std::filesystem::create_directories(scratch.path("empty"));
  CHECK_THROWS(ModelFile::open(scratch.path("empty")), kFileNotFound);
  files::write(scratch.path("empty/some.gguf"), "x");
  CHECK(message(scratch.path("empty")).find("Choose one of them") != std::string::npos);
  files::write(scratch.path("empty/model.safetensors"), tiny_safetensors().build());
  CHECK(message(scratch.path("empty")).find("config.json") != std::string::npos);
  mkfifo(scratch.path("empty/config.json").c_str(), 0600);
  CHECK_THROWS(ModelFile::open(scratch.path("empty")), kInvalidArgument);
}

TEST("a file cut at any byte is refused") {
  const std::string whole = tiny_safetensors().build();
  for (size_t size = 1; size < whole.size(); size += size < 2500 ? 1 : 97)
    if (message(folder("cut", whole.substr(0, size))).empty())
      check::fail(__FILE__, __LINE__, "took the first " + std::to_string(size) + " bytes");
}

TEST("header lengths that cannot be") {
  CHECK_THROWS(open("1234567"), kFileTruncated);
  for (const uint64_t length : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 30, UINT64_MAX})
    CHECK_THROWS(open(bytes_of(length) + "{}"), kUnknownFormat);
  CHECK_THROWS(open(bytes_of<uint64_t>(3) + "{}"), kFileTruncated);
  CHECK_THROWS(open(bytes_of<uint64_t>(2) + "[]"), kFileCorrupt);
  CHECK_THROWS(open(bytes_of<uint64_t>(2) + "{x"), kFileCorrupt);
  CHECK(open(bytes_of<uint64_t>(2) + "{}")->tensors().empty());
}

TEST("entries that cannot be") {
  const std::string data(16, '\0');
  CHECK(open_entry(R"({"dtype":"F32","shape":[2,2],"data_offsets":[0,16]})", data)->find("t")->view.rows ==
        2);
  CHECK(open_entry(R"({"dtype":"F32","shape":[],"data_offsets":[12,16]})", data)->find("t")->view.cols == 1);
  CHECK(open_entry(R"({"dtype":"F32","shape":[0,4],"data_offsets":[16,16]})", data)->find("t")->view.empty());
  for (const char* entry :
       {"1", "{}", R"({"dtype":"F32","shape":[4]})", R"({"dtype":"F32","data_offsets":[0,16]})",
        R"({"dtype":"F32","shape":4,"data_offsets":[0,16]})",
        R"({"dtype":"F32","shape":[4],"data_offsets":[0]})",
        R"({"dtype":"F32","shape":[4],"data_offsets":[16,0]})",
        R"({"dtype":"F32","shape":[4],"data_offsets":[-16,0]})",
        R"({"dtype":"F32","shape":[4],"data_offsets":[0.5,16.5]})",
        R"({"dtype":"F32","shape":[5],"data_offsets":[0,16]})",
        R"({"dtype":"F16","shape":[4],"data_offsets":[0,16]})",
        R"({"dtype":"F32","shape":[-2,-2],"data_offsets":[0,16]})",
        R"({"dtype":"F32","shape":["4"],"data_offsets":[0,16]})",
        R"({"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,0]})",
        R"({"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]})",
        R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,4],"data_offsets":[0,16]})"})
    CHECK_THROWS(open_entry(entry, data), kFileCorrupt);
  CHECK_THROWS(open_entry(R"({"dtype":"F32","shape":[4],"data_offsets":[4,20]})", data), kFileTruncated);
  CHECK_THROWS(
      open_entry(R"({"dtype":"F32","shape":[4],"data_offsets":[9007199254740976,9007199254740992]})", data),
      kFileTruncated);
}

TEST("tensors that share bytes or names are refused") {
  const std::string data(16, '\0');
  const std::string entry = R"({"dtype":"F32","shape":[2],"data_offsets":)";
  CHECK_THROWS(open(Safetensors::with_header("{\"a\":" + entry + "[0,8]},\"b\":" + entry + "[4,12]}}", data)),
               kFileCorrupt);
  CHECK_THROWS(open(Safetensors::with_header("{\"a\":" + entry + "[0,8]},\"a\":" + entry + "[8,16]}}", data)),
               kFileCorrupt);
  CHECK(open(Safetensors::with_header("{\"b\":" + entry + "[0,8]},\"a\":" + entry + "[8,16]}}", data))
            ->tensors()
            .size() == 2);
}

TEST("a type that the engine does not read gives an empty view with its name") {
  const auto file = open_entry(R"({"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]})", "1234");
  CHECK(file->find("t")->view.empty());
  CHECK(file->find("t")->stored_type == "F8_E4M3");
}

TEST_MAIN()
