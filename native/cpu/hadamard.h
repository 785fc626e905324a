// The Walsh-Hadamard transform of a head: orthonormal, so that scores of queries and keys that both went through it are the same. Outliers
// of a few dimensions become a little of all of them, which codes of few bits can hold (the rotation of QuaRot, arXiv 2404.00456).
#pragma once

#include <cstdint>

namespace longview::cpu {

// x [n], in place, n even. Where n is no power of two, blocks of the largest one that divides it go through it by themselves.
void hadamard(float* x, int64_t n);

}  // namespace longview::cpu
