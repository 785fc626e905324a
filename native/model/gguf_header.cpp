#include "model/gguf_header.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "base/half.h"
#include "base/text.h"

namespace longview {
namespace {

enum ValueType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

// Beyond every real model (a vocabulary of 262,144 with its merges takes about 20 MB), and small enough that
// what a made-up header unpacks to fits in memory.
constexpr uint64_t kMaxHeaderBytes = 128 << 20, kMaxValues = 1 << 16, kMaxTensors = 1 << 20,
                   kMaxItems = 1 << 24;
constexpr uint64_t kMaxKeyLength = 65535, kMaxTensorNameLength = 1024;
constexpr int kMaxArrayDepth = 4;

class Reader {
 public:
  explicit Reader(const MappedFile& file)
      : file_(file), end_(std::min(static_cast<uint64_t>(file.size()), kMaxHeaderBytes)) {}

  uint64_t position() const { return at_; }

  template <typename T>
  T read() {
    need(sizeof(T));
    const T value = load<T>(file_.data() + at_);
    at_ += sizeof(T);
    return value;
  }

  std::string read_string(uint64_t longest = kMaxHeaderBytes) {
    const auto length = read<uint64_t>();
    if (length > longest) corrupt("a text in its header is impossibly long");
    need(length);
    std::string text(file_.text().substr(at_, length));
    at_ += length;
    return text;
  }

  // Checks that `count` items of at least `item_bytes` each can still follow.
  void need_items(uint64_t count, uint64_t item_bytes, uint64_t most, const char* what) const {
    if (count > most || count > (end_ - at_) / item_bytes)
      corrupt(format("it announces %llu %s, more than it can hold", static_cast<unsigned long long>(count),
                     what));
  }

  [[noreturn]] void corrupt(const std::string& why) const { throw_corrupt(file_.path(), why); }

 private:
  void need(uint64_t bytes) const {
    if (bytes <= end_ - at_) return;
    if (bytes <= static_cast<uint64_t>(file_.size()) - at_) corrupt("its header is impossibly large");
    throw_truncated(file_.path(), "it ends inside its header");
  }

  const MappedFile& file_;
  const uint64_t end_;
  uint64_t at_ = 0;
};

uint64_t smallest_item(uint32_t type, const Reader& reader) {
  switch (type) {
    case kU8:
    case kI8:
    case kBool: return 1;
    case kU16:
    case kI16: return 2;
    case kU32:
    case kI32:
    case kF32: return 4;
    case kU64:
    case kI64:
    case kF64:
    case kString: return 8;
    case kArray: return 12;
    default: reader.corrupt(format("its metadata has a value of the unknown type %u", type));
  }
}

int64_t read_signed(Reader& reader, uint32_t type) {
  switch (type) {
    case kU8: return reader.read<uint8_t>();
    case kI8: return reader.read<int8_t>();
    case kU16: return reader.read<uint16_t>();
    case kI16: return reader.read<int16_t>();
    case kU32: return reader.read<uint32_t>();
    case kI32: return reader.read<int32_t>();
    default: return reader.read<int64_t>();
  }
}

template <typename T, typename Read>
MetadataValue read_items(uint64_t count, Read read) {
  std::vector<T> items;
  items.reserve(count);
  for (uint64_t i = 0; i < count; ++i) items.push_back(read());
  return items;
}

MetadataValue read_array(Reader& reader, int depth) {
  if (depth > kMaxArrayDepth) reader.corrupt("its metadata is nested too deeply");
  const auto type = reader.read<uint32_t>();
  const auto count = reader.read<uint64_t>();
  reader.need_items(count, smallest_item(type, reader), kMaxItems, "items in a list");
  switch (type) {
    case kString: return read_items<std::string>(count, [&] { return reader.read_string(); });
    case kF32: return read_items<double>(count, [&] { return static_cast<double>(reader.read<float>()); });
    case kF64: return read_items<double>(count, [&] { return reader.read<double>(); });
    case kBool: return read_items<bool>(count, [&] { return reader.read<uint8_t>() != 0; });
    case kU64: return read_items<uint64_t>(count, [&] { return reader.read<uint64_t>(); });
    case kArray: return read_items<MetadataValue>(count, [&] { return read_array(reader, depth + 1); });
    default: return read_items<int64_t>(count, [&] { return read_signed(reader, type); });
  }
}

MetadataValue read_value(Reader& reader, uint32_t type) {
  switch (type) {
    case kArray: return read_array(reader, 1);
    case kString: return reader.read_string();
    case kF32: return static_cast<double>(reader.read<float>());
    case kF64: return reader.read<double>();
    case kBool: return reader.read<uint8_t>() != 0;
    case kU64: return reader.read<uint64_t>();
    default: smallest_item(type, reader); return read_signed(reader, type);
  }
}

Metadata read_metadata(Reader& reader, uint64_t count) {
  Metadata metadata;
  for (uint64_t i = 0; i < count; ++i) {
    std::string key = reader.read_string(kMaxKeyLength);
    const auto type = reader.read<uint32_t>();
    const auto [at, added] = metadata.emplace(std::move(key), read_value(reader, type));
    if (!added) reader.corrupt("the metadata key " + printable(at->first) + " stands twice");
  }
  return metadata;
}

GgufTensorInfo read_tensor_info(Reader& reader) {
  GgufTensorInfo info;
  info.name = reader.read_string(kMaxTensorNameLength);
  const auto dimensions = reader.read<uint32_t>();
  if (dimensions < 1 || dimensions > 4)
    reader.corrupt(format("tensor %s has %u dimensions", printable(info.name).c_str(), dimensions));
  for (uint32_t i = 0; i < dimensions; ++i)
    info.shape.insert(info.shape.begin(), static_cast<int64_t>(reader.read<uint64_t>()));
  if (element_count(info.shape) <= 0)
    reader.corrupt("tensor " + printable(info.name) + " has an impossible shape");
  info.type = reader.read<uint32_t>();
  info.offset = reader.read<uint64_t>();
  return info;
}

void check_magic(const MappedFile& file) {
  const std::string_view text = file.text();
  LONGVIEW_CHECK(!text.starts_with("version https://git-lfs"), kUnknownFormat,
                 "%s is only the Git LFS pointer of a model. Run `git lfs pull` or download the file itself.",
                 file.path().c_str());
  LONGVIEW_CHECK(text.starts_with("GGUF"), kUnknownFormat,
                 "%s is not a model that Longview knows: it is neither a GGUF file nor safetensors.",
                 file.path().c_str());
}

}  // namespace

int64_t GgufHeader::integer_or(const char* key, int64_t fallback) const {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return fallback;
  const int64_t* value = std::get_if<int64_t>(&found->second);
  return value ? *value : -1;
}

GgufHeader read_gguf_header(const MappedFile& file) {
  check_magic(file);
  Reader reader(file);
  reader.read<uint32_t>();
  const auto version = reader.read<uint32_t>();
  LONGVIEW_CHECK(version != 0x02000000 && version != 0x03000000, kUnknownFormat,
                 "The model file %s is GGUF for big-endian machines; choose the little-endian one.",
                 file.path().c_str());
  LONGVIEW_CHECK(version == 2 || version == 3, kUnknownFormat,
                 "The model file %s is GGUF version %u; Longview reads versions 2 and 3.",
                 file.path().c_str(), version);
  const auto tensor_count = reader.read<uint64_t>();
  const auto value_count = reader.read<uint64_t>();

  GgufHeader header;
  reader.need_items(value_count, 13, kMaxValues, "metadata values");
  header.metadata = read_metadata(reader, value_count);
  reader.need_items(tensor_count, 32, kMaxTensors, "tensors");
  header.tensors.reserve(tensor_count);
  for (uint64_t i = 0; i < tensor_count; ++i) header.tensors.push_back(read_tensor_info(reader));

  const int64_t alignment = header.integer_or("general.alignment", 32);
  if (alignment < 1 || alignment > 65536 || !std::has_single_bit(static_cast<uint64_t>(alignment)))
    reader.corrupt("its alignment is not a power of two");
  const uint64_t mask = static_cast<uint64_t>(alignment) - 1;
  header.data_start = (reader.position() + mask) & ~mask;
  for (const GgufTensorInfo& info : header.tensors)
    if ((info.offset & mask) != 0) reader.corrupt("tensor " + printable(info.name) + " is not aligned");
  return header;
}

}  // namespace longview
