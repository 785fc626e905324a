#include "model/fingerprint.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/error.h"
#include "base/half.h"

namespace longview {
namespace {

constexpr int64_t kSample = 4096, kSamples = 256;

// Two multiply-and-rotate lanes over 64-bit words, each told apart by its constants, with a final mix.
class Hash128 {
 public:
  void add(const std::byte* data, int64_t size) {
    add(static_cast<uint64_t>(size));
    int64_t i = 0;
    for (; i + 8 <= size; i += 8) add(load<uint64_t>(data + i));
    uint64_t rest = 0;
    std::memcpy(&rest, data + i, static_cast<size_t>(size - i));
    add(rest);
  }

  std::string hex() const {
    return format("%016llx%016llx", static_cast<unsigned long long>(finish(a_ + b_)),
                  static_cast<unsigned long long>(finish(b_ ^ std::rotl(a_, 23))));
  }

 private:
  void add(uint64_t word) {
    a_ = std::rotl(a_ ^ (word * 0x87c37b91114253d5ull), 27) * 0x9e3779b97f4a7c15ull;
    b_ = std::rotl(b_ + (word ^ 0x4cf5ad432745937full), 31) * 0xc2b2ae3d27d4eb4full;
  }
  static uint64_t finish(uint64_t x) {
    x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdull;
    x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53ull;
    return x ^ (x >> 33);
  }

  uint64_t a_ = 0x243f6a8885a308d3ull, b_ = 0x13198a2e03707344ull;
};

}  // namespace

std::string fingerprint(const ModelFile& file) {
  Hash128 hash;
  for (const ModelPart& part : file.parts()) {
    const std::byte* data = part.file->data();
    const int64_t size = part.file->size(), start = part.header_bytes, weights = size - start;
    hash.add(data, start);
    if (weights <= kSample * kSamples) {
      hash.add(data + start, weights);
      continue;
    }
    hash.add(reinterpret_cast<const std::byte*>(&size), sizeof(size));
    // The first sample begins and the last one ends with the weights.
    for (int64_t i = 0; i < kSamples; ++i)
      hash.add(data + start + (weights - kSample) / (kSamples - 1) * i, kSample);
    hash.add(data + size - kSample, kSample);
  }
  return hash.hex();
}

}  // namespace longview
