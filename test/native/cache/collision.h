// Two different pages of the same hash: nothing but a comparison of their tokens tells them apart.
#pragma once

#include <bit>
#include <cstring>
#include <vector>

#include "backend/backend.h"
#include "base/hash.h"

namespace longview {

struct Collision {
  std::vector<int32_t> one, other;
};

// Behind a page of this hash. Each makes one factor of the first product zero, and both have the same sum.
inline Collision collision(uint64_t parent) {
  using namespace hash_detail;
  const uint64_t lane = parent ^ kSecret[0];
  const auto page = [](uint64_t a, uint64_t b) {
    std::vector<int32_t> tokens(kPageTokens, 7);
    std::memcpy(tokens.data(), &a, sizeof(a));
    std::memcpy(tokens.data() + 2, &b, sizeof(b));
    return tokens;
  };
  constexpr uint64_t kAny = 5;
  return {page(kSecret[4], kAny), page(kSecret[4] + std::rotl(kAny, 32) - std::rotl(lane, 32), lane)};
}

}  // namespace longview
