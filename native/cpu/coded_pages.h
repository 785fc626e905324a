// Keys and values of q8 and q4 pages as the right-hand matrices of kernels.h: widened for a tile just before its products.
#pragma once

#include "cpu/kernels.h"
#include "cpu/kv_pages.h"

namespace longview::cpu {

// One head's K and V in a page of codes.
struct CodedPage {
  const CpuKvStorage& storage;
  int32_t page;
  int64_t layer, head;
};

// Columns from .. from + tokens - 1 of K to `out`, rows `ldo` elements apart: a pair matrix [d/2][tokens] for products in
// bf16, else float [d][tokens].
void widen_keys(const Kernels& kernels, bool bf16, const CodedPage& at, int64_t from, int64_t tokens, void* out, int64_t ldo);
// Tokens from .. from + tokens - 1 of V, both even: a pair matrix [tokens/2][width], or float [tokens][width].
void widen_values(const Kernels& kernels, bool bf16, const CodedPage& at, int64_t from, int64_t tokens, void* out);

}  // namespace longview::cpu
