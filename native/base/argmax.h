#pragma once

#include <cstdint>
#include <span>

namespace longview {

// Index of the largest value; the first of equals. NaN is not chosen unless all are: then 0.
int32_t argmax(std::span<const float> values);

}  // namespace longview
