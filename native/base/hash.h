// A fast 64-bit hash for checksums and chains of pages: about memory speed, no table, the same on every little-endian machine.
// It finds damage; it is no protection against someone who makes collisions.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/half.h"

namespace longview {

namespace hash_detail {

constexpr uint64_t kSecret[8] = {0x9e3779b97f4a7c15ull, 0xbf58476d1ce4e5b9ull, 0x94d049bb133111ebull, 0xd6e8feb86659fd93ull,
                                 0xa0761d6478bd642full, 0xe7037ed1a0b428dbull, 0x8ebc6af09c88c6e3ull, 0x589965cc75374cc3ull};

// The 128-bit product of two words, folded.
inline uint64_t fold(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

}  // namespace hash_detail

// Four lanes take 16 bytes each of every 64: both words are multiplied by one another after a secret and the lane's state
// were mixed in (as wyhash does), and added plainly too, so that no word is lost where the other factor is zero.
inline uint64_t hash64(const void* data, size_t size, uint64_t seed = 0) {
  using namespace hash_detail;
  const auto* bytes = static_cast<const std::byte*>(data);
  uint64_t lanes[4];
  for (int i = 0; i < 4; ++i) lanes[i] = seed ^ kSecret[i];
  const auto take = [&lanes](const std::byte* block) {
    for (int i = 0; i < 4; ++i) {
      const auto a = load<uint64_t>(block + 16 * i), b = load<uint64_t>(block + 16 * i + 8);
      lanes[i] = fold(a ^ kSecret[4 + i], b ^ lanes[i]) + a + std::rotl(b, 32);
    }
  };
  size_t at = 0;
  for (; at + 64 <= size; at += 64) take(bytes + at);
  if (at < size) {
    std::byte last[64] = {};
    std::memcpy(last, bytes + at, size - at);
    take(last);
  }
  uint64_t all = fold(size ^ kSecret[0], seed ^ kSecret[5]);
  for (int i = 0; i < 4; ++i) all = fold(all ^ lanes[i], kSecret[i] ^ std::rotl(lanes[i], 29));
  return all ^ (all >> 32);
}

}  // namespace longview
