// GGUF v2 and v3: header, metadata, tensor table. Every count, length and offset is checked against the file before it is
// used, and nothing is allocated that the bytes left in the file could not fill. Source: ggml's docs/gguf.md.
#include <cstring>

#include "base/error.h"
#include "base/half.h"
#include "model/model_file.h"
#include "model/quant_formats.h"

namespace longview {
namespace {

enum ValueType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

class Reader {
 public:
  explicit Reader(const MappedFile& file) : file_(file) {}

  uint64_t left() const { return static_cast<uint64_t>(file_.size()) - at_; }
  uint64_t position() const { return at_; }

  template <typename T>
  T read() {
    need(sizeof(T));
    const T value = load<T>(file_.data() + at_);
    at_ += sizeof(T);
    return value;
  }

  std::string read_string() {
    const auto length = read<uint64_t>();
    need(length);
    std::string text(reinterpret_cast<const char*>(file_.data() + at_), length);
    at_ += length;
    return text;
  }

  // Checks that `count` items of at least `item_bytes` can still follow.
  void need_items(uint64_t count, uint64_t item_bytes, const char* what) {
    LONGVIEW_CHECK(count <= left() / item_bytes, kFileCorrupt, "The model file %s is damaged: it announces %llu %s, more than its bytes can hold.",
                   file_.path().c_str(), static_cast<unsigned long long>(count), what);
  }

  [[noreturn]] void corrupt(const std::string& why) const {
    LONGVIEW_THROW(kFileCorrupt, "The model file %s is damaged: %s.", file_.path().c_str(), why.c_str());
  }

 private:
  void need(uint64_t bytes) const {
    LONGVIEW_CHECK(bytes <= left(), kFileTruncated, "The model file %s ends inside its header. Download it again.", file_.path().c_str());
  }

  const MappedFile& file_;
  uint64_t at_ = 0;
};

uint64_t smallest_item(uint32_t type, const Reader& reader) {
  switch (type) {
    case kU8: case kI8: case kBool: return 1;
    case kU16: case kI16: return 2;
    case kU32: case kI32: case kF32: return 4;
    case kU64: case kI64: case kF64: case kString: return 8;
    default: reader.corrupt(format("metadata of the unknown type %u", type));
  }
}

int64_t read_integer(Reader& reader, uint32_t type) {
  switch (type) {
    case kU8: return reader.read<uint8_t>();
    case kI8: return reader.read<int8_t>();
    case kU16: return reader.read<uint16_t>();
    case kI16: return reader.read<int16_t>();
    case kU32: return reader.read<uint32_t>();
    case kI32: return reader.read<int32_t>();
    case kU64: return static_cast<int64_t>(reader.read<uint64_t>());
    case kBool: return reader.read<uint8_t>() != 0;
    default: return reader.read<int64_t>();
  }
}

MetadataValue read_array(Reader& reader) {
  const auto type = reader.read<uint32_t>();
  const auto count = reader.read<uint64_t>();
  reader.need_items(count, smallest_item(type, reader), "metadata items");
  if (type == kString) {
    std::vector<std::string> items;
    items.reserve(count);
    for (uint64_t i = 0; i < count; ++i) items.push_back(reader.read_string());
    return MetadataArray(std::move(items));
  }
  if (type == kF32 || type == kF64) {
    std::vector<double> items(count);
    for (double& item : items) item = type == kF32 ? static_cast<double>(reader.read<float>()) : reader.read<double>();
    return MetadataArray(std::move(items));
  }
  std::vector<int64_t> items(count);
  for (int64_t& item : items) item = read_integer(reader, type);
  return MetadataArray(std::move(items));
}

MetadataValue read_value(Reader& reader, uint32_t type) {
  switch (type) {
    case kArray: return read_array(reader);
    case kString: return reader.read_string();
    case kF32: return static_cast<double>(reader.read<float>());
    case kF64: return reader.read<double>();
    case kBool: return reader.read<uint8_t>() != 0;
    case kU64: return reader.read<uint64_t>();
    default: smallest_item(type, reader); return read_integer(reader, type);
  }
}

struct TensorInfo {
  std::string name;
  std::vector<int64_t> shape;  // outermost first
  DType type;
  uint64_t offset;
  int64_t bytes;
};

TensorInfo read_tensor_info(Reader& reader, const std::string& path) {
  TensorInfo info;
  info.name = reader.read_string();
  const auto dimensions = reader.read<uint32_t>();
  if (dimensions < 1 || dimensions > 4) reader.corrupt(format("tensor %s has %u dimensions", info.name.c_str(), dimensions));
  int64_t elements = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto extent = reader.read<uint64_t>();
    if (extent == 0 || extent > (1ull << 40) || elements > (1ll << 46) / static_cast<int64_t>(extent))
      reader.corrupt(format("tensor %s has an impossible shape", info.name.c_str()));
    elements *= static_cast<int64_t>(extent);
    info.shape.insert(info.shape.begin(), static_cast<int64_t>(extent));
  }
  const auto type = reader.read<uint32_t>();
  info.offset = reader.read<uint64_t>();
  const QuantFormat* known = find_format(type);
  LONGVIEW_CHECK(known, kUnsupportedQuantization,
                 "The model file %s stores %s as %s, which Longview cannot read. It reads F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, "
                 "Q5_1, Q4_K, Q5_K and Q6_K: choose a file in one of these.",
                 path.c_str(), info.name.c_str(), ggml_type_name(type));
  info.type = static_cast<DType>(type);
  const int64_t cols = info.shape.back();
  if (cols % known->block_elements != 0) reader.corrupt(format("the rows of tensor %s are not whole %s blocks", info.name.c_str(), known->name));
  info.bytes = elements / known->block_elements * known->block_bytes;
  return info;
}

}  // namespace

void read_gguf(const std::string& path, ModelFile& into) {
  into.files_.push_back(std::make_unique<MappedFile>(path));
  const MappedFile& file = *into.files_.back();
  Reader reader(file);
  LONGVIEW_CHECK(file.size() >= 4 && std::memcmp(file.data(), "GGUF", 4) == 0, kUnknownFormat,
                 "%s is not a model that Longview knows: it is neither a GGUF file nor safetensors.", path.c_str());
  reader.read<uint32_t>();
  const auto version = reader.read<uint32_t>();
  LONGVIEW_CHECK(version == 2 || version == 3, kUnknownFormat, "The model file %s is GGUF version %u; Longview reads versions 2 and 3.",
                 path.c_str(), version);
  const auto tensor_count = reader.read<uint64_t>();
  const auto value_count = reader.read<uint64_t>();

  reader.need_items(value_count, 13, "metadata values");
  for (uint64_t i = 0; i < value_count; ++i) {
    std::string key = reader.read_string();
    const auto type = reader.read<uint32_t>();
    const auto [at, added] = into.metadata_.emplace(std::move(key), read_value(reader, type));
    if (!added) reader.corrupt(format("the metadata key %s stands twice", at->first.c_str()));
  }
  LONGVIEW_CHECK(into.integer_or("split.count", 1) <= 1, kUnknownFormat,
                 "%s is one part of a split model. Join the parts with `gguf-split --merge` and choose the joined file.", path.c_str());

  reader.need_items(tensor_count, 25, "tensors");
  std::vector<TensorInfo> infos;
  infos.reserve(tensor_count);
  for (uint64_t i = 0; i < tensor_count; ++i) infos.push_back(read_tensor_info(reader, path));

  const int64_t alignment = into.integer_or("general.alignment", 32);
  if (alignment < 1 || alignment > 65536 || (alignment & (alignment - 1)) != 0) reader.corrupt("its alignment is not a power of two");
  const uint64_t mask = static_cast<uint64_t>(alignment) - 1;
  const uint64_t data_start = (reader.position() + mask) & ~mask;
  const auto size = static_cast<uint64_t>(file.size());
  for (TensorInfo& info : infos) {
    if ((info.offset & mask) != 0) reader.corrupt(format("tensor %s is not aligned", info.name.c_str()));
    LONGVIEW_CHECK(data_start <= size && info.offset <= size - data_start && static_cast<uint64_t>(info.bytes) <= size - data_start - info.offset,
                   kFileTruncated, "The model file %s is cut off: tensor %s lies beyond its end. Download it again.", path.c_str(), info.name.c_str());
    const int64_t cols = info.shape.back();
    int64_t rows = 1;
    for (size_t i = 0; i + 1 < info.shape.size(); ++i) rows *= info.shape[i];
    const TensorView view{info.type, rows, cols, file.data() + data_start + info.offset, info.bytes};
    into.add(std::move(info.name), {view, std::move(info.shape)});
  }
}

}  // namespace longview
