#include "model/model_file.h"

#include <sys/stat.h>

#include <cstring>

#include "base/error.h"

namespace longview {
namespace {

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

}  // namespace

std::shared_ptr<const ModelFile> ModelFile::open(const std::string& path) {
  LONGVIEW_CHECK(!path.empty(), kInvalidArgument, "No model file was given.");
  auto file = std::make_shared<ModelFile>();
  file->path_ = path;
  struct stat status {};
  const bool folder = stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
  if (folder || ends_with(path, ".safetensors")) {
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
  LONGVIEW_CHECK(added, kFileCorrupt, "The model file %s holds the tensor %s twice.", path_.c_str(), at->first.c_str());
}

int64_t ModelFile::integer_or(std::string_view key, int64_t fallback) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return fallback;
  if (const auto* value = std::get_if<int64_t>(&found->second)) return *value;
  if (const auto* value = std::get_if<uint64_t>(&found->second)) return *value > INT64_MAX ? INT64_MAX : static_cast<int64_t>(*value);
  return fallback;
}

double ModelFile::number_or(std::string_view key, double fallback) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return fallback;
  if (const auto* value = std::get_if<double>(&found->second)) return *value;
  if (const auto* value = std::get_if<int64_t>(&found->second)) return static_cast<double>(*value);
  if (const auto* value = std::get_if<uint64_t>(&found->second)) return static_cast<double>(*value);
  return fallback;
}

std::string ModelFile::string_or(std::string_view key, const std::string& fallback) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return fallback;
  const auto* value = std::get_if<std::string>(&found->second);
  return value ? *value : fallback;
}

}  // namespace longview
