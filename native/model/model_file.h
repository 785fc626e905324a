// What GGUF and safetensors have in common for the rest of the engine: named tensors and metadata.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"
#include "base/tensor.h"
#include "model/mapped_file.h"

namespace longview {

// A GGUF metadata value: every type of the format, widened to 64 bits. Long lists (the vocabulary) stay
// typed.
struct MetadataValue : std::variant<bool, int64_t, uint64_t, double, std::string, std::vector<bool>,
                                    std::vector<int64_t>, std::vector<uint64_t>, std::vector<double>,
                                    std::vector<std::string>, std::vector<MetadataValue>> {
  using variant::variant;
};
using Metadata = std::map<std::string, MetadataValue, std::less<>>;

struct StoredTensor {
  TensorView view;             // empty where the engine does not read the type
  std::vector<int64_t> shape;  // outermost first
  std::string stored_type;     // as the file names it: "Q5_0", "BF16", "IQ3_XXS"
};

// One mapped file of a model and how many of its bytes are not weights.
struct ModelPart {
  std::unique_ptr<MappedFile> file;
  int64_t header_bytes = 0;
};

// Where a tensor's bytes lie in its part.
struct Extent {
  int64_t begin = 0;
  int64_t end = 0;
};

class ModelFile {
 public:
  enum class Format { kGguf, kSafetensors };

  // Takes a .gguf file (of a split model any part), a .safetensors file with config.json beside it, or a
  // folder with config.json and safetensors. Checks every length and offset against the files, but not what
  // the tensors mean.
  static std::shared_ptr<const ModelFile> open(const std::string& path);

  Format format() const { return format_; }
  const std::string& path() const { return path_; }
  const Metadata& metadata() const { return metadata_; }  // GGUF; empty for safetensors
  const Json& config() const { return config_; }          // config.json; null for GGUF
  const std::map<std::string, StoredTensor, std::less<>>& tensors() const { return tensors_; }
  // Null when there is none.
  const StoredTensor* find(std::string_view name) const;
  // All files that make up the model, config.json included, in an order that does not depend on which was
  // named.
  const std::vector<ModelPart>& parts() const { return parts_; }

  // GGUF metadata, `fallback` where the key is absent. Throws kFileCorrupt where its value is of another
  // kind.
  int64_t integer_or(std::string_view key, int64_t fallback) const;
  double number_or(std::string_view key, double fallback) const;
  bool bool_or(std::string_view key, bool fallback) const;
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
  std::vector<ModelPart> parts_;
};

void read_gguf(const std::string& path, ModelFile& into);         // gguf.cpp
void read_safetensors(const std::string& path, ModelFile& into);  // safetensors.cpp

// Throws kFileCorrupt when two tensors share bytes. Sorts `extents`.
void check_disjoint(std::vector<Extent>& extents, const std::string& path);

// The product of a shape's extents, or -1 where one is negative or the product leaves what a file can hold
// (2^48).
int64_t element_count(const std::vector<int64_t>& shape);

// Sentences that several readers need, so that they read alike.
[[noreturn]] void throw_corrupt(const std::string& path, const std::string& why);
[[noreturn]] void throw_truncated(const std::string& path, const std::string& where);

}  // namespace longview
