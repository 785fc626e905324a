// safetensors: u64 header length, JSON header, data. One file, or a folder with config.json and shards.
// Source: the format's README (huggingface/safetensors).
#include <set>

#include "base/error.h"
#include "base/half.h"
#include "base/text.h"
#include "model/model_file.h"
#include "model/quant_formats.h"
#include "os/file.h"

namespace longview {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100 << 20;  // the format's own limit
constexpr int64_t kMaxJsonBytes = 64 << 20;

bool exists(const std::string& path) { return os::status(path).kind != os::Kind::kNothing; }

Json parse_file(const MappedFile& file) {
  LONGVIEW_CHECK(file.size() <= kMaxJsonBytes, kFileCorrupt, "%s has %s, too much for a model's JSON file.",
                 file.path().c_str(), human_size(file.size()).c_str());
  return Json::parse(file.text(), file.path());
}

// Null for a type that the engine does not read; those tensors only matter when the graph asks for them.
const DType* readable(const std::string& name) {
  static constexpr DType kF32 = DType::kF32, kF16 = DType::kF16, kBF16 = DType::kBF16;
  return name == "F32" ? &kF32 : name == "F16" ? &kF16 : name == "BF16" ? &kBF16 : nullptr;
}

std::vector<int64_t> integers(const Json* list) {
  std::vector<int64_t> values;
  if (const Json::Array* items = list ? list->array() : nullptr)
    for (const Json& item : *items) values.push_back(item.integer_or(-1));
  return values;
}

StoredTensor parse_tensor(const std::string& name, const Json& entry, const MappedFile& file,
                          int64_t data_start, std::vector<Extent>& extents) {
  const auto corrupt = [&](const char* why) {
    throw_corrupt(file.path(), "tensor " + printable(name) + " " + why);
  };
  const Json* shape = entry.find("shape");
  if (!shape || !shape->array()) corrupt("has no shape");
  StoredTensor tensor{{}, integers(shape), entry.string_or("dtype", "")};
  const int64_t elements = element_count(tensor.shape);
  if (elements < 0 || tensor.shape.size() > 8) corrupt("has an impossible shape");

  const std::vector<int64_t> offsets = integers(entry.find("data_offsets"));
  if (offsets.size() != 2 || offsets[0] < 0 || offsets[1] < offsets[0]) corrupt("has impossible offsets");
  if (offsets[1] > file.size() - data_start)
    throw_truncated(file.path(), "tensor " + printable(name) + " lies beyond its end");
  if (offsets[1] > offsets[0]) extents.push_back({offsets[0], offsets[1]});

  if (const DType* type = readable(tensor.stored_type); type) {
    if (row_bytes(*type, elements) != offsets[1] - offsets[0])
      corrupt("has offsets that do not fit its shape");
    const int64_t cols = tensor.shape.empty() ? 1 : tensor.shape.back();
    if (elements > 0)
      tensor.view = {*type, elements / cols, cols, file.data() + data_start + offsets[0],
                     offsets[1] - offsets[0]};
  }
  return tensor;
}

struct HeaderSpan {
  std::string_view json;
  int64_t data_start;
};

HeaderSpan header_of(const MappedFile& file) {
  const std::string& path = file.path();
  LONGVIEW_CHECK(!file.text().starts_with("version https://git-lfs"), kUnknownFormat,
                 "%s is only the Git LFS pointer of a model. Run `git lfs pull` or download the file itself.",
                 path.c_str());
  if (file.size() < 8) throw_truncated(path, "it ends inside its header");
  const auto bytes = load<uint64_t>(file.data());
  LONGVIEW_CHECK(bytes >= 2 && bytes <= kMaxHeaderBytes, kUnknownFormat, "%s is not a safetensors file.",
                 path.c_str());
  if (bytes > static_cast<uint64_t>(file.size()) - 8) throw_truncated(path, "it ends inside its header");
  return {file.text().substr(8, bytes), 8 + static_cast<int64_t>(bytes)};
}

// A .gguf file in the folder, to name in the sentence when a folder of GGUF files was chosen.
std::string any_gguf(const std::string& folder) {
  std::string found;
  for (const std::string& name : os::Folder(folder).names())
    if (name.ends_with(".gguf") && (found.empty() || name < found)) found = name;
  return found;
}

std::set<std::string> shards_of(const std::string& folder) {
  const std::string index = folder + "/model.safetensors.index.json", single = folder + "/model.safetensors";
  if (!exists(index)) {
    if (exists(single)) return {single};
    const std::string gguf = any_gguf(folder);
    LONGVIEW_CHECK(gguf.empty(), kFileNotFound, "%s is a folder of GGUF files. Choose one of them: %s/%s.",
                   folder.c_str(), folder.c_str(), printable(gguf).c_str());
    LONGVIEW_THROW(kFileNotFound, "The folder %s holds no model: neither model.safetensors nor its index.",
                   folder.c_str());
  }
  const Json document = parse_file(MappedFile(index));
  const Json* map = document.find("weight_map");
  LONGVIEW_CHECK(map && map->object() && !map->object()->empty(), kFileCorrupt, "%s has no weight_map.",
                 index.c_str());
  std::set<std::string> shards;
  for (const auto& [tensor, value] : *map->object()) {
    // A name, not a path: an index must not lead out of its folder.
    const std::string* name = value.string();
    const bool good = name && name->ends_with(".safetensors") && name->find('/') == std::string::npos &&
                      name->find('\0') == std::string::npos;
    LONGVIEW_CHECK(good, kFileCorrupt, "%s names no .safetensors file of its folder for %s.", index.c_str(),
                   printable(tensor).c_str());
    shards.insert(folder + "/" + *name);
  }
  for (const std::string& shard : shards)
    LONGVIEW_CHECK(exists(shard), kFileNotFound,
                   "The model %s has %zu parts and one is missing: %s. Download it too.", folder.c_str(),
                   shards.size(), printable(shard, 500).c_str());
  return shards;
}

}  // namespace

void read_safetensors(const std::string& path, ModelFile& into) {
  const bool folder = os::status(path).kind == os::Kind::kFolder;
  const std::filesystem::path above = os::path_of(path).parent_path();
  const std::string home = folder ? path : above.empty() ? "." : os::utf8_of(above);
  const std::set<std::string> shards = folder ? shards_of(path) : std::set<std::string>{path};
  LONGVIEW_CHECK(folder || exists(path), kFileNotFound, "There is no model file %s.", path.c_str());

  const std::string config = home + "/config.json";
  LONGVIEW_CHECK(exists(config), kFileNotFound,
                 "%s is missing: a safetensors model needs its config.json beside it.", config.c_str());
  auto config_file = std::make_unique<MappedFile>(config);
  into.config_ = parse_file(*config_file);
  const int64_t config_bytes = config_file->size();
  into.parts_.push_back({std::move(config_file), config_bytes});

  for (const std::string& shard : shards) {
    auto file = std::make_unique<MappedFile>(shard);
    const HeaderSpan span = header_of(*file);
    const Json header = Json::parse(span.json, "The header of " + shard);
    if (!header.object()) throw_corrupt(shard, "its header is not an object");
    std::vector<Extent> extents;
    for (const auto& [name, entry] : *header.object())
      if (name != "__metadata__") into.add(name, parse_tensor(name, entry, *file, span.data_start, extents));
    check_disjoint(extents, shard);
    into.parts_.push_back({std::move(file), span.data_start});
  }
}

}  // namespace longview
