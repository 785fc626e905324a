// Means of the KV pages (kernels/api/cache.h). Callers have checked shapes; D is a multiple of 8, at most 1024.
#pragma once

#include "kernels/api/cache.h"

namespace longview::kernels {

// Makes the means, of kv.layer, of the pages that so many tokens from first_position on have made full; nothing where pages keep none.
Status launch_page_means(const PagedKv& kv, int64_t first_position, int64_t tokens, Stream stream);

// Copies the means of pages 0 .. pages - 1 of kv.layer to blocks [G, ceil(pages / 128), 2, 128 * D], K and V, which lie as
// the blocks of a page do, a page's mean in the place of a token; zeros behind the last. A mean of keys that is no number (fault.cuh) would
// reach all rows that meet its block: it is zeros there, and the page's gain, of gains [G, ceil(pages / 128) * 128], is NaN.
Status launch_gather_means(const PagedKv& kv, int64_t pages, void* blocks, float* gains, Stream stream);
// The means of each 32 keys of the first `full` pages of kv.layer, bf16 or e4m3 ones, to blocks [G, 4 * mean_blocks, 128 * D] that lie as
// those above do: mean i of a page in the place of token 4 * page + i. What lies behind the last is left as it is. D is 64
// or 128, in bf16 also 256.
Status launch_fine_means(const PagedKv& kv, int64_t full, int64_t mean_blocks, void* blocks, Stream stream);
// The blocks of launch_gather_means in e4m3, as those of e4m3 pages, of the first `full` pages: a ragged last one has no means. D is 64 or 128.
Status launch_narrow_means(const PagedKv& kv, int64_t pages, int64_t full, const void* blocks, void* codes, Stream stream);

}  // namespace longview::kernels
