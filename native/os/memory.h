// Memory of the system, by the page.
#pragma once

#include <cstddef>
#include <cstdint>

namespace longview::os {

// The system's page, in bytes: what give_back takes whole.
int64_t page_size();

// Zeros that take memory where they are touched; null where the system has no room for so many bytes.
std::byte* reserve(int64_t bytes);
void release(std::byte* reserved, int64_t bytes);
// Whole pages of what was reserved become zeros again, and take no memory.
void give_back(std::byte* at, int64_t bytes);
// Takes the memory of these pages at once, where the system can: cheaper than a fault each.
void populate(std::byte* at, int64_t bytes);

// Aligned to 64; null where there is no room. To be freed with free_aligned.
void* allocate_aligned(size_t bytes);
void free_aligned(void* at);

int64_t total_memory();      // 0: not known
int64_t available_memory();  // what this process may still take; 0: not known

}  // namespace longview::os
