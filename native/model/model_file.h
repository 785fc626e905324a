// What GGUF and safetensors have in common for the rest of the engine: named tensors and metadata.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/json.h"
#include "base/tensor.h"
#include "model/mapped_file.h"

namespace longview {

// A GGUF metadata value. Arrays are of one element type; arrays of arrays are refused.
struct MetadataValue;
using MetadataArray = std::variant<std::vector<std::string>, std::vector<int64_t>, std::vector<double>>;
struct MetadataValue : std::variant<std::monostate, bool, int64_t, uint64_t, double, std::string, MetadataArray> {
  using variant::variant;
};
using Metadata = std::map<std::string, MetadataValue, std::less<>>;

struct StoredTensor {
  TensorView view;
  std::vector<int64_t> shape;  // outermost first
};

class ModelFile {
 public:
  enum class Format { kGguf, kSafetensors };

  // Takes a .gguf file, a .safetensors file (config.json beside it) or a folder with safetensors.
  static std::shared_ptr<const ModelFile> open(const std::string& path);

  Format format() const { return format_; }
  const std::string& path() const { return path_; }
  const Metadata& metadata() const { return metadata_; }  // GGUF; empty for safetensors
  const Json& config() const { return config_; }          // config.json; null for GGUF
  const std::map<std::string, StoredTensor, std::less<>>& tensors() const { return tensors_; }
  // Null when there is none.
  const StoredTensor* find(std::string_view name) const;
  const std::vector<std::unique_ptr<MappedFile>>& files() const { return files_; }

  // GGUF metadata; a value of another type counts as absent.
  int64_t integer_or(std::string_view key, int64_t fallback) const;
  double number_or(std::string_view key, double fallback) const;
  std::string string_or(std::string_view key, const std::string& fallback) const;

 private:
  friend void read_gguf(const std::string&, ModelFile&);
  friend void read_safetensors(const std::string&, ModelFile&);

  // Throws kFileCorrupt when the name is there already.
  void add(std::string name, StoredTensor tensor);

  Format format_ = Format::kGguf;
  std::string path_;
  Metadata metadata_;
  Json config_;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
  std::vector<std::unique_ptr<MappedFile>> files_;
};

void read_gguf(const std::string& path, ModelFile& into);         // gguf.cpp
void read_safetensors(const std::string& path, ModelFile& into);  // safetensors.cpp

}  // namespace longview
