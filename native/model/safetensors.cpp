// safetensors: u64 header length, JSON header, data. One file, or a folder with config.json and shards. Source: the
// format's README (huggingface/safetensors).
#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/half.h"
#include "model/model_file.h"
#include "model/quant_formats.h"

namespace longview {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100ull << 20;

bool exists(const std::string& path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0;
}

Json read_json_file(const std::string& path) {
  const MappedFile file(path);
  LONGVIEW_CHECK(static_cast<uint64_t>(file.size()) <= kMaxHeaderBytes, kFileCorrupt, "%s is too large to be a model's JSON file.", path.c_str());
  return Json::parse({reinterpret_cast<const char*>(file.data()), static_cast<size_t>(file.size())}, path);
}

DType parse_dtype(const std::string& name, const std::string& tensor, const std::string& path) {
  if (name == "F32") return DType::kF32;
  if (name == "F16") return DType::kF16;
  if (name == "BF16") return DType::kBF16;
  LONGVIEW_THROW(kUnsupportedQuantization, "The model file %s stores %s as %s; of safetensors Longview reads F32, F16 and BF16.",
                 path.c_str(), tensor.c_str(), name.c_str());
}

// A non-negative integer of the header, or -1.
int64_t count_of(const Json& value) {
  const double* number = value.number();
  if (!number || *number < 0 || *number > 0x1p53 || *number != static_cast<double>(static_cast<int64_t>(*number))) return -1;
  return static_cast<int64_t>(*number);
}

struct Extent {
  int64_t begin, end;
};

StoredTensor parse_tensor(const std::string& name, const Json& entry, const MappedFile& file, int64_t data_start, Extent& extent) {
  const auto corrupt = [&](const char* why) {
    LONGVIEW_THROW(kFileCorrupt, "The model file %s is damaged: tensor %s %s.", file.path().c_str(), name.c_str(), why);
  };
  const Json* shape = entry.find("shape");
  const Json* offsets = entry.find("data_offsets");
  if (!shape || !shape->array() || !offsets || !offsets->array() || offsets->array()->size() != 2) corrupt("has no shape or offsets");
  StoredTensor tensor;
  tensor.view.type = parse_dtype(entry.string_or("dtype", "nothing"), name, file.path());
  int64_t elements = 1;
  for (const Json& item : *shape->array()) {
    const int64_t count = count_of(item);
    if (count <= 0 || elements > (int64_t{1} << 46) / count) corrupt("has an impossible shape");
    elements *= count;
    tensor.shape.push_back(count);
  }
  if (tensor.shape.empty()) tensor.shape.push_back(1);
  extent = {count_of((*offsets->array())[0]), count_of((*offsets->array())[1])};
  if (extent.begin < 0 || extent.end < extent.begin) corrupt("has impossible offsets");
  LONGVIEW_CHECK(extent.end <= file.size() - data_start, kFileTruncated,
                 "The model file %s is cut off: tensor %s lies beyond its end. Download it again.", file.path().c_str(), name.c_str());
  tensor.view.cols = tensor.shape.back();
  tensor.view.rows = elements / tensor.view.cols;
  tensor.view.bytes = row_bytes(tensor.view.type, elements);
  if (tensor.view.bytes != extent.end - extent.begin) corrupt("has offsets that do not fit its shape");
  tensor.view.data = file.data() + data_start + extent.begin;
  return tensor;
}

}  // namespace

void read_safetensors(const std::string& path, ModelFile& into) {
  struct stat status {};
  const bool folder = stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
  const size_t slash = path.find_last_of('/');
  const std::string home = folder ? path : slash == std::string::npos ? "." : path.substr(0, slash);

  std::set<std::string> shards;
  const std::string index = home + "/model.safetensors.index.json";
  if (!folder) {
    shards.insert(path);
  } else if (exists(index)) {
    const Json document = read_json_file(index);
    const Json* map = document.find("weight_map");
    LONGVIEW_CHECK(map && map->object(), kFileCorrupt, "%s has no weight_map.", index.c_str());
    for (const auto& [tensor, file] : *map->object()) {
      // A name, not a path: an index must not lead out of its folder.
      LONGVIEW_CHECK(file.string() && file.string()->find('/') == std::string::npos && *file.string() != ".." && !file.string()->empty(),
                     kFileCorrupt, "%s names no file of its folder for %s.", index.c_str(), tensor.c_str());
      shards.insert(home + "/" + *file.string());
    }
  } else {
    shards.insert(home + "/model.safetensors");
    LONGVIEW_CHECK(exists(*shards.begin()), kFileNotFound, "The folder %s holds no model: neither model.safetensors nor its index.", home.c_str());
  }
  const std::string config = home + "/config.json";
  LONGVIEW_CHECK(exists(config), kFileNotFound, "%s is missing: a safetensors model needs its config.json beside it.", config.c_str());
  into.config_ = read_json_file(config);

  for (const std::string& shard : shards) {
    into.files_.push_back(std::make_unique<MappedFile>(shard));
    const MappedFile& file = *into.files_.back();
    LONGVIEW_CHECK(file.size() >= 8, kFileTruncated, "The model file %s is cut off. Download it again.", shard.c_str());
    const auto header_bytes = load<uint64_t>(file.data());
    LONGVIEW_CHECK(header_bytes >= 2 && header_bytes <= kMaxHeaderBytes, kUnknownFormat, "%s is not a safetensors file.", shard.c_str());
    LONGVIEW_CHECK(header_bytes <= static_cast<uint64_t>(file.size()) - 8, kFileTruncated, "The model file %s ends inside its header. Download it again.", shard.c_str());
    const Json header = Json::parse({reinterpret_cast<const char*>(file.data()) + 8, header_bytes}, shard + "'s header");
    LONGVIEW_CHECK(header.object(), kFileCorrupt, "The header of %s is not an object.", shard.c_str());
    std::vector<Extent> extents;
    for (const auto& [name, entry] : *header.object()) {
      if (name == "__metadata__") continue;
      Extent extent{};
      StoredTensor tensor = parse_tensor(name, entry, file, 8 + static_cast<int64_t>(header_bytes), extent);
      extents.push_back(extent);
      into.add(name, std::move(tensor));
    }
    std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
    for (size_t i = 1; i < extents.size(); ++i)
      LONGVIEW_CHECK(extents[i].begin >= extents[i - 1].end, kFileCorrupt, "The model file %s is damaged: tensors overlap.", shard.c_str());
  }
}

}  // namespace longview
