#include "engine/calibration_part.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/hash.h"
#include "base/replace_file.h"
#include "os/file.h"

namespace longview {
namespace {

constexpr uint64_t kMagic = 0x3174726170766c63;  // "clvpart1"
constexpr size_t kHeader = 3, kOfLayer = 2, kOfTrial = 6;

// Calls `each` with every number of the layers, in the file's order.
template <typename Layers, typename Each>
void visit(Layers& layers, Each each) {
  for (auto& layer : layers) {
    each(layer.measured_to);
    each(layer.rows);
    for (auto& t : layer.trials) {
      each(t.error);
      each(t.seconds);
      each(t.coverage.visited);
      each(t.coverage.causal);
      each(t.coverage.covered);
      each(t.coverage.probes);
    }
  }
}

uint64_t checksum(std::span<const uint64_t> numbers, uint64_t identity) { return hash64(numbers.data(), numbers.size_bytes(), identity); }

}  // namespace

void write_calibration_part(const std::string& path, uint64_t identity, std::span<const LayerTrials> layers) {
  std::vector<uint64_t> numbers(kHeader);
  visit(layers, [&](auto number) { numbers.push_back(std::bit_cast<uint64_t>(number)); });
  numbers[0] = kMagic;
  numbers[1] = identity;
  numbers[2] = checksum(std::span(numbers).subspan(kHeader), identity);
  replace_file(path, {reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(uint64_t)});
}

bool read_calibration_part(const std::string& path, uint64_t identity, std::span<LayerTrials> layers) {
  if (os::status(path).kind != os::Kind::kFile) return false;
  size_t expected = kHeader;
  for (const LayerTrials& layer : layers) expected += kOfLayer + kOfTrial * layer.trials.size();
  // One more than there may be, to see where there are more.
  std::vector<uint64_t> numbers(expected + 1);
  const os::File file(path, os::Open::kRead);
  if (!file || file.read(0, std::as_writable_bytes(std::span(numbers))) / static_cast<int64_t>(sizeof(uint64_t)) != static_cast<int64_t>(expected)) return false;
  numbers.pop_back();
  const auto data = std::span<const uint64_t>(numbers).subspan(kHeader);
  if (numbers[0] != kMagic || numbers[1] != identity || numbers[2] != checksum(data, identity)) return false;
  std::vector<LayerTrials> read(layers.begin(), layers.end());
  size_t at = 0;
  bool sound = true;
  visit(read, [&](auto& number) {
    number = std::bit_cast<std::remove_reference_t<decltype(number)>>(data[at++]);
    sound = sound && number >= 0 && std::isfinite(static_cast<double>(number));
  });
  if (sound) std::move(read.begin(), read.end(), layers.begin());
  return sound;
}

}  // namespace longview
