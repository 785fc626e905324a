#include "cuda/page_tables.h"

#include <algorithm>

namespace longview::cuda {
namespace {

// One layer of a page in bf16.
int64_t copy_bytes(const KvShape& shape) { return kernels::page_bytes(kernels::PageFormat::kBFloat16, 1, shape.kv_heads, page_dim(shape.head_dim), shape.mean_tokens > 0); }

}  // namespace

int64_t PageTables::expanded_page_bytes(const KvShape& shape) {
  return shape.format == KvFormat::kBFloat16 ? 0 : copy_bytes(shape) + static_cast<int64_t>(sizeof(void*));
}

kernels::PagedKv PageTables::paged(const KvShape& shape, int64_t layer, const KvPages& pages, int64_t tokens) {
  auto& storage = static_cast<CudaKvStorage&>(*pages.storage);
  const std::span<const int32_t> slots = pages.page_slots.first(static_cast<size_t>(pages_of(tokens)));
  if (storage_ != &storage || !std::equal(slots.begin(), slots.end(), slots_.begin(), slots_.end())) {
    storage_ = nullptr;  // until the pointers are there
    sent_.clear();
    for (const int32_t slot : slots) sent_.push_back(storage.page(slot));
    table_.grow(device_, storage.pages() * static_cast<int64_t>(sizeof(void*)), "the page table");
    device_.check(device_.library().copy_to_device(table_.as(), sent_.data(), sent_.size() * sizeof(void*), device_.stream()), "sending the page table");
    slots_.assign(slots.begin(), slots.end());
    storage_ = &storage;
  }
  return {table_.as<void*>(), shape.kv_heads, page_dim(shape.head_dim), layer, shape.mean_tokens > 0 ? shape.layers : 0, page_format(shape.format)};
}

kernels::PagedKv PageTables::expanded(const KvShape& shape, int64_t layer, const KvPages& pages, int64_t tokens, int64_t first) {
  kernels::PagedKv from = paged(shape, layer, pages, tokens);
  const int64_t count = pages.storage->pages(), bytes = copy_bytes(shape), table_bytes = count * static_cast<int64_t>(sizeof(void*));
  if (copies_.bytes() < count * bytes || copy_table_.bytes() < table_bytes || copy_bytes_ != bytes) {
    device_.library().synchronize(device_.stream());  // nothing reads what may go
    copy_bytes_ = 0;  // until the pointers are there
    copies_.grow(device_, count * bytes, "the KV state of a layer in bf16");
    copy_table_.grow(device_, table_bytes, "the table of its pages");
    std::vector<void*> to(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) to[static_cast<size_t>(i)] = copies_.as<char>() + i * bytes;
    device_.check(device_.library().copy_to_device(copy_table_.as(), to.data(), to.size() * sizeof(void*), device_.stream()), "sending the page table");
    device_.check(device_.library().synchronize(device_.stream()), "sending the page table");  // `to` may go
    copy_bytes_ = bytes;
  }
  const int64_t skipped = first / kPageTokens;
  from.pages += skipped;
  device_.check(device_.library().expand_pages({from, copy_table_.as<void*>() + skipped, pages_of(tokens) - skipped}, device_.stream()), "widening the KV state");
  return {copy_table_.as<void*>(), from.kv_heads, from.head_dim, 0, from.layers > 0 ? 1 : 0};
}

}  // namespace longview::cuda
