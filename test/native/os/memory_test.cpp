// Memory by the page, and libraries.
#include "os/memory.h"

#include <cstdint>
#include <filesystem>

#include "check.h"
#include "os/file.h"
#include "os/library.h"

using namespace longview;

TEST("reserved memory is zeros, again after it was given back") {
  const int64_t page = os::page_size(), bytes = (int64_t{1} << 30) / page * page;
  std::byte* memory = os::reserve(bytes);
  CHECK(memory);
  if (!memory) return;
  os::populate(memory + page, 2 * page);
  for (const int64_t at : {int64_t{0}, page, 2 * page, 3 * page - 1, bytes - 1}) {
    CHECK(memory[at] == std::byte{0});
    memory[at] = std::byte{7};
  }
  os::give_back(memory + page, 2 * page);
  CHECK(memory[0] == std::byte{7} && memory[page] == std::byte{0} && memory[3 * page - 1] == std::byte{0} && memory[bytes - 1] == std::byte{7});
  memory[page] = std::byte{9};
  CHECK(memory[page] == std::byte{9});
  os::release(memory, bytes);
}

TEST("what no machine has is refused") { CHECK(!os::reserve(int64_t{1} << 62)); }

TEST("aligned memory is aligned") {
  for (const size_t bytes : {size_t{1}, size_t{64}, size_t{1000}}) {
    void* at = os::allocate_aligned(bytes);
    CHECK(at && reinterpret_cast<uintptr_t>(at) % 64 == 0);
    os::free_aligned(at);
  }
}

TEST("this machine has memory") { CHECK(os::available_memory() > 0 && os::available_memory() <= os::total_memory()); }

TEST("code knows its own file, and a library that is not there is not opened") {
  CHECK(os::status(os::own_path()).kind == os::Kind::kFile);
  std::string why;
  CHECK(!os::open_library("no-such-longview-library", &why) && !why.empty());
}

TEST_MAIN()
