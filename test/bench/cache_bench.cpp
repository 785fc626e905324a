// Loading saved pages, beside a plain sequential read of the same files: build/native/cache_bench FOLDER [MiB] [rounds].
// FOLDER lies on the disk to be measured. In each round they come in turn, with the files dropped from the system's memory
// before each ("disk") and left in it ("memory"); medians.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <random>

#include "base/cancel.h"
#include "base/error.h"
#include "cache/page_stream.h"
#include "cache/save_pages.h"

using namespace longview;

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// For read(2) and posix_fadvise(2).
struct Descriptor {
  explicit Descriptor(const std::string& path) : number(open(path.c_str(), O_RDONLY)) {}
  ~Descriptor() { close(number); }
  const int number;
};

std::vector<std::string> segments(const std::string& folder) {
  std::vector<std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().filename().string().starts_with("pages-")) out.push_back(entry.path());
  std::sort(out.begin(), out.end());
  return out;
}

void drop(const std::string& folder) {
  for (const std::string& path : segments(folder)) {
    const Descriptor file(path);
    fsync(file.number);
    posix_fadvise(file.number, 0, 0, POSIX_FADV_DONTNEED);
  }
}

// read(2) into one buffer, as `cat FILES > /dev/null` does.
double read_plainly(const std::string& folder) {
  const double start = now();
  std::vector<std::byte> buffer(size_t{1} << 20);
  for (const std::string& path : segments(folder)) {
    const Descriptor file(path);
    while (read(file.number, buffer.data(), buffer.size()) > 0) {
    }
  }
  return now() - start;
}

// read(2) into memory that holds all of it, untouched before: what keeping what was read costs at least.
double read_and_keep(const std::string& folder, int64_t bytes) {
  const auto memory = std::unique_ptr<std::byte[]>(new std::byte[static_cast<size_t>(bytes)]);
  const double start = now();
  std::byte* to = memory.get();
  for (const std::string& path : segments(folder)) {
    const Descriptor file(path);
    for (ssize_t count = 0; (count = read(file.number, to, size_t{1} << 20)) > 0;) to += count;
  }
  return now() - start;
}

// Reads, checks, and copies into pages that were never touched before.
double load(const std::string& folder, const CacheIdentity& identity, std::span<const int32_t> tokens, const KvShape& shape) {
  const auto backend = make_cpu_backend({});
  const auto storage = backend->allocate_kv(shape, static_cast<int64_t>(tokens.size()) / kPageTokens);
  const double start = now();
  PageStream stream(folder, identity, tokens, 0);
  for (int32_t slot = 0; !stream.finished();) {
    if (const PageStream::Page* page = stream.next(std::chrono::milliseconds(5))) {
      backend->write_page(*storage, slot++, page->bytes);
      stream.pop();
    }
  }
  const double seconds = now() - start;
  LONGVIEW_CHECK(!stream.damaged() && stream.end() == static_cast<int64_t>(tokens.size()), kInternal, "the state did not load whole");
  return seconds;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 2) {
    std::printf("usage: cache_bench FOLDER [MiB] [rounds]\n");
    return 2;
  }
  const std::string folder = std::string(argv[1]) + "/longview-cache-bench";
  const int64_t mebibytes = argc > 2 ? std::atoll(argv[2]) : 1024, rounds = argc > 3 ? std::atoll(argv[3]) : 5;
  const KvShape shape{30, 3, 64, KvFormat::kBFloat16};  // the built-in model's
  const int64_t page_bytes = make_cpu_backend({})->allocate_kv(shape, 1)->page_bytes();
  const CacheIdentity identity{1, page_bytes};
  const int64_t pages = (mebibytes << 20) / page_bytes;
  std::vector<int32_t> tokens(static_cast<size_t>(pages * kPageTokens));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i);
  std::vector<std::byte> noise(static_cast<size_t>(page_bytes) + 4096);
  std::mt19937 random(1);
  for (std::byte& byte : noise) byte = static_cast<std::byte>(random());
  const FetchPage fetch = [&](int64_t number, std::span<std::byte> out, std::function<void(bool)> done) {
    std::copy_n(noise.begin() + number % 4096, out.size(), out.begin());
    done(true);
  };
  const double start = now();
  save_pages(folder, identity, tokens, {}, fetch, CancelToken(), [](int64_t, int64_t) {});
  const double gigabytes = static_cast<double>(pages * page_bytes) / 1e9;
  std::printf("%.2f GB, pages of %.2f MB; saved in %.2f s (%.2f GB/s, synced)\n", gigabytes, static_cast<double>(page_bytes) / 1e6, now() - start, gigabytes / (now() - start));
  for (const bool cold : {true, false}) {
    std::vector<double> plain, kept, loaded, ratios, kept_ratios;
    for (int64_t round = 0; round < rounds; ++round) {
      if (cold) drop(folder);
      plain.push_back(read_plainly(folder));
      if (cold) drop(folder);
      kept.push_back(read_and_keep(folder, pages * page_bytes));
      if (cold) drop(folder);
      loaded.push_back(load(folder, identity, tokens, shape));
      ratios.push_back(plain.back() / loaded.back());
      kept_ratios.push_back(kept.back() / loaded.back());
    }
    std::printf("%s: plain read %.2f GB/s, read and kept %.2f GB/s, load %.2f GB/s: %.0f %% of the plain read, %.0f %% of read and kept (medians of %lld rounds)\n",
                cold ? "disk  " : "memory", gigabytes / median(plain), gigabytes / median(kept), gigabytes / median(loaded), 100 * median(ratios), 100 * median(kept_ratios),
                static_cast<long long>(rounds));
  }
  std::filesystem::remove_all(folder);
  return 0;
} catch (const Error& error) {
  std::printf("%s\n", error.what());
  return 1;
}
