#include "model/model_file.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/text.h"
#include "os/file.h"

namespace longview {

std::shared_ptr<const ModelFile> ModelFile::open(const std::string& path) {
  LONGVIEW_CHECK(!path.empty(), kInvalidArgument, "No model file was given.");
  LONGVIEW_CHECK(path.find('\0') == std::string::npos, kInvalidArgument,
                 "The model's path holds a zero byte.");
  auto file = std::make_shared<ModelFile>();
  file->path_ = path;
  const bool folder = os::status(path).kind == os::Kind::kFolder;
  if (folder || path.ends_with(".safetensors")) {
    file->format_ = Format::kSafetensors;
    read_safetensors(path, *file);
  } else {
    read_gguf(path, *file);
  }
  return file;
}

const StoredTensor* ModelFile::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

void ModelFile::add(std::string name, StoredTensor tensor) {
  const auto [at, added] = tensors_.emplace(std::move(name), std::move(tensor));
  if (!added) throw_corrupt(path_, "the tensor " + printable(at->first) + " stands twice");
}

int64_t ModelFile::integer_or(std::string_view key, int64_t fallback) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return fallback;
  if (const auto* value = std::get_if<int64_t>(&found->second)) return *value;
  if (const auto* value = std::get_if<uint64_t>(&found->second))
    return static_cast<int64_t>(std::min<uint64_t>(*value, std::numeric_limits<int64_t>::max()));
  throw_corrupt(path_, printable(key) + " is no whole number");
}

double ModelFile::number_or(std::string_view key, double fallback) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return fallback;
  if (const auto* value = std::get_if<double>(&found->second)) return *value;
  return static_cast<double>(integer_or(key, 0));
}

bool ModelFile::bool_or(std::string_view key, bool fallback) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return fallback;
  const auto* value = std::get_if<bool>(&found->second);
  if (!value) throw_corrupt(path_, printable(key) + " is neither true nor false");
  return *value;
}

std::string ModelFile::string_or(std::string_view key, const std::string& fallback) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return fallback;
  const auto* value = std::get_if<std::string>(&found->second);
  if (!value) throw_corrupt(path_, printable(key) + " is no text");
  return *value;
}

void check_disjoint(std::vector<Extent>& extents, const std::string& path) {
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < extents.size(); ++i)
    if (extents[i].begin < extents[i - 1].end) throw_corrupt(path, "two of its tensors share bytes");
}

int64_t element_count(const std::vector<int64_t>& shape) {
  constexpr int64_t kMost = int64_t{1} << 48;
  int64_t count = 1;
  for (const int64_t extent : shape) {
    if (extent < 0) return -1;
    if (extent > 0 && count > kMost / extent) return -1;
    count *= extent;
  }
  return count;
}

void throw_corrupt(const std::string& path, const std::string& why) {
  LONGVIEW_THROW(kFileCorrupt, "The model %s is damaged: %s. Download it again.", path.c_str(), why.c_str());
}

void throw_truncated(const std::string& path, const std::string& where) {
  LONGVIEW_THROW(kFileTruncated, "The model file %s is cut off: %s. Download it again.", path.c_str(),
                 where.c_str());
}

}  // namespace longview
