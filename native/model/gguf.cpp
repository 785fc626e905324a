// GGUF files, whole or split: places the tensors of each header in its file.
#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "model/gguf_header.h"
#include "model/model_file.h"
#include "model/quant_formats.h"
#include "os/file.h"

namespace longview {
namespace {

constexpr int64_t kMostParts = 99999;  // names have five digits

// Checks the tensor's bytes against the file; a type that the engine does not read gives an empty view.
StoredTensor place(const GgufTensorInfo& info, const MappedFile& file, uint64_t data_start,
                   std::vector<Extent>& extents) {
  const auto size = static_cast<uint64_t>(file.size());
  const QuantFormat* known = find_format(info.type);
  const int64_t cols = info.shape.back();
  uint64_t bytes = 0;
  if (known) {
    if (cols % known->block_elements != 0)
      throw_corrupt(file.path(), format("the rows of tensor %s are not whole %s blocks",
                                        printable(info.name).c_str(), known->name));
    bytes = static_cast<uint64_t>(element_count(info.shape) / known->block_elements * known->block_bytes);
  }
  if (data_start > size || info.offset > size - data_start || bytes > size - data_start - info.offset)
    throw_truncated(file.path(), "tensor " + printable(info.name) + " lies beyond its end");

  StoredTensor tensor{{}, info.shape, known ? known->name : ggml_type_name(info.type)};
  if (known) {
    tensor.view = {static_cast<DType>(info.type), element_count(info.shape) / cols, cols,
                   file.data() + data_start + info.offset, static_cast<int64_t>(bytes)};
    extents.push_back({static_cast<int64_t>(info.offset), static_cast<int64_t>(info.offset + bytes)});
  }
  return tensor;
}

// "big-00002-of-00003.gguf" is part 2 of 3 of "big": the paths of all parts, in order. Empty for any other
// name.
std::vector<std::string> split_paths(const std::string& path, int64_t count) {
  const std::string end = format("-of-%05lld.gguf", static_cast<long long>(count));
  if (!path.ends_with(end) || path.size() < end.size() + 6) return {};
  const std::string stem = path.substr(0, path.size() - end.size() - 5);
  if (!stem.ends_with('-')) return {};
  std::vector<std::string> paths;
  for (int64_t i = 1; i <= count; ++i)
    paths.push_back(stem + format("%05lld", static_cast<long long>(i)) + end);
  return paths;
}

std::vector<std::string> parts_of(const std::string& path, int64_t count) {
  std::vector<std::string> paths = split_paths(path, count);
  LONGVIEW_CHECK(!paths.empty(), kFileCorrupt,
                 "The model file %s is one of %lld parts of a model, but its name does not end in "
                 "-00001-of-%05lld.gguf as theirs must. Give the parts their names back.",
                 path.c_str(), static_cast<long long>(count), static_cast<long long>(count));
  for (const std::string& part : paths) {
    LONGVIEW_CHECK(os::status(part).kind != os::Kind::kNothing, kFileNotFound,
                   "The model %s has %lld parts and one is missing: %s. Download it into the same folder.",
                   path.c_str(), static_cast<long long>(count), part.c_str());
  }
  return paths;
}

struct OpenedPart {
  std::unique_ptr<MappedFile> file;
  GgufHeader header;
};

OpenedPart open_part(const std::string& path) {
  auto file = std::make_unique<MappedFile>(path);
  GgufHeader header = read_gguf_header(*file);
  return {std::move(file), std::move(header)};
}

}  // namespace

void read_gguf(const std::string& path, ModelFile& into) {
  OpenedPart first = open_part(path);
  const int64_t count = first.header.integer_or("split.count", 1);
  std::vector<std::string> paths{path};
  if (count > kMostParts) throw_corrupt(path, format("it says that it is one of %lld parts", static_cast<long long>(count)));
  if (count > 1) {
    paths = parts_of(path, count);
    if (paths.front() != path) first = open_part(paths.front());
  }
  // Only the first part has the model's metadata.
  into.metadata_ = first.header.metadata;
  for (size_t i = 0; i < paths.size(); ++i) {
    OpenedPart part = i == 0 ? std::move(first) : open_part(paths[i]);
    const MappedFile& file = *part.file;
    if (count > 1 && (part.header.integer_or("split.no", -1) != static_cast<int64_t>(i) ||
                      part.header.integer_or("split.count", -1) != count))
      throw_corrupt(file.path(), "its name and its header disagree on which part of the model it is");
    std::vector<Extent> extents;
    for (GgufTensorInfo& info : part.header.tensors) {
      StoredTensor tensor = place(info, file, part.header.data_start, extents);
      into.add(std::move(info.name), std::move(tensor));
    }
    check_disjoint(extents, file.path());
    const auto header_bytes = std::min<uint64_t>(part.header.data_start, static_cast<uint64_t>(file.size()));
    into.parts_.push_back({std::move(part.file), static_cast<int64_t>(header_bytes)});
  }
  const int64_t announced =
      into.integer_or("split.tensors.count", static_cast<int64_t>(into.tensors_.size()));
  if (count > 1 && announced != static_cast<int64_t>(into.tensors_.size()))
    throw_corrupt(path, "its parts do not add up to the tensors that it announces");
}

}  // namespace longview
