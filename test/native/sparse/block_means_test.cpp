// The means and spreads that pages keep, against double, after everything that can happen to a page: filled in pieces, forked, cut,
// written anew.
#include <cmath>
#include <random>

#include "cache/page_list.h"
#include "check.h"
#include "cpu/block_means.h"
#include "cpu/cpu_features.h"
#include "cpu/sparse_attention.h"

using namespace longview;

namespace {

constexpr int64_t kDim = 64, kHeads = 2, kWidth = kHeads * kDim;

// A token sequence with the K and V that were written for it.
struct Sequence {
  PageList list;
  std::vector<float> keys, values;  // [length, kWidth]
};

class Cache {
 public:
  explicit Cache(KvFormat format)
      : backend_(make_cpu_backend({2, Precision::kFloat32, ""})), shape_{1, kHeads, kDim, format, cpu::kMeanTokens}, pool_(*backend_, shape_, 16), index_(pool_, 1) {
    RopeConfig still;  // every position is turned by nothing
    still.inverse_frequencies.assign(kDim / 2, 0.0);
    still.dims = kDim;
    rope_ = backend_->upload_rope(still);
  }

  Sequence empty() { return {PageList(*backend_, pool_, index_), {}, {}}; }

  std::unique_ptr<Sequence> fork(const Sequence& from) {
    std::unique_ptr<Sequence> copy(new Sequence{PageList(*backend_, pool_, index_), from.keys, from.values});
    copy->list.share(from.list);
    return copy;
  }

  void truncate(Sequence& sequence, int64_t length) {
    sequence.list.truncate(length);
    sequence.keys.resize(static_cast<size_t>(length * kWidth));
    sequence.values.resize(static_cast<size_t>(length * kWidth));
  }

  // Fresh random K and V behind what is there; no two calls write alike.
  void append(Sequence& sequence, int64_t count) {
    const int64_t first = sequence.list.length();
    pieces_ = pieces_ || first % cpu::kMeanTokens != 0;
    sequence.list.reserve(count);
    Activation q = backend_->allocate(count, kWidth), k = backend_->allocate(count, kWidth), v = backend_->allocate(count, kWidth);
    std::fill_n(static_cast<float*>(q.data), count * kWidth, 0.0f);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < count * kWidth; ++i) {
      sequence.keys.push_back(static_cast<float*>(k.data)[i] = normal(random_) + (i % kDim == 5 ? 40.0f : 0.0f));
      sequence.values.push_back(static_cast<float*>(v.data)[i] = normal(random_) * 3);
    }
    backend_->rope_and_append_kv(q, k, v, *rope_, shape_, 0, sequence.list.view(), first);
    for (int64_t i = 0; i < count; ++i) ids_.push_back(next_++);
    sequence.list.advance(std::span(ids_).last(static_cast<size_t>(count)));
    for (Activation* buffer : {&q, &k, &v}) backend_->release(*buffer);
  }

  // Every whole block of the sequence, K and V, against the mean of what was written for its tokens.
  void check(const Sequence& sequence) {
    const int64_t blocks = sequence.list.length() / cpu::kMeanTokens;
    const bool narrow = shape_.format != KvFormat::kFloat32;
    for (int64_t head = 0; head < kHeads; ++head) {
      cpu::GatheredMeans means;
      const KvPages pages = sequence.list.view();
      means.gather(*cpu::available_kernels().front(), false, {static_cast<const cpu::CpuKvStorage&>(*pages.storage), pages.page_slots, 0, head}, blocks);
      for (int64_t block = 0; block < blocks; ++block) {
        double spread = 0;
        for (int64_t i = 0; i < kDim; ++i) {
          double key = 0, value = 0, squares = 0;
          for (int64_t t = block * cpu::kMeanTokens; t < (block + 1) * cpu::kMeanTokens; ++t) {
            key += static_cast<double>(sequence.keys[static_cast<size_t>(t * kWidth + head * kDim + i)]) / cpu::kMeanTokens;
            value += static_cast<double>(sequence.values[static_cast<size_t>(t * kWidth + head * kDim + i)]);
            squares += std::pow(static_cast<double>(sequence.keys[static_cast<size_t>(t * kWidth + head * kDim + i)]), 2) / cpu::kMeanTokens;
          }
          spread += (squares - key * key) / kDim;
          // bf16 keeps 8 bits; the tokens of a block's earlier pieces were rounded too, but those errors cancel: in q8,
          // whose steps are 44 / 127 beside the large dim, not as well.
          CHECK_NEAR(static_cast<const float*>(means.keys(0))[i * means.ld() + block], key, narrow ? std::fabs(key) / 256 + (shape_.format == KvFormat::kQ8 && pieces_ ? 0.08 : 0.02) : 2e-5);
          CHECK_NEAR(static_cast<const float*>(means.values(0))[block * kDim + i], value, narrow ? std::fabs(value) / 256 + 0.5 : 2e-3);
        }
        CHECK_NEAR(means.key_spreads()[static_cast<size_t>(block)], spread, narrow && pieces_ ? 0.1 * spread : 1e-4 * spread);
      }
    }
  }

 private:
  std::unique_ptr<Backend> backend_;
  KvShape shape_;
  PagePool pool_;
  PrefixIndex index_;
  std::unique_ptr<DeviceRope> rope_;
  std::mt19937 random_{7};
  std::vector<int32_t> ids_;
  int32_t next_ = 0;
  bool pieces_ = false;  // a block may be made of several calls' tokens
};

}  // namespace

TEST("means of blocks that are filled in pieces, down to single tokens") {
  for (const KvFormat format : {KvFormat::kFloat32, KvFormat::kBFloat16, KvFormat::kQ8}) {
    Cache cache(format);
    Sequence sequence = cache.empty();
    for (const int64_t count : {1, 30, 1, 1, 64, 100, 31, 128, 5}) {
      cache.append(sequence, count);
      cache.check(sequence);
    }
    for (int i = 0; i < 70; ++i) cache.append(sequence, 1);
    cache.check(sequence);
  }
}

TEST("means of blocks that are written at once are made before the values are quantised") {
  Cache cache(KvFormat::kQ8);
  Sequence sequence = cache.empty();
  for (const int64_t count : {256, 32, 96, 64}) cache.append(sequence, count);
  cache.check(sequence);
}

TEST("forks that go on differently have their own means") {
  for (const KvFormat format : {KvFormat::kFloat32, KvFormat::kBFloat16, KvFormat::kQ8}) {
    Cache cache(format);
    Sequence base = cache.empty();
    cache.append(base, 150);  // the tail is within a page and within a block
    const auto left = cache.fork(base), right = cache.fork(base);
    cache.append(*left, 20);
    cache.append(*right, 200);
    cache.append(base, 45);
    for (const Sequence* sequence : std::initializer_list<const Sequence*>{&base, left.get(), right.get()}) cache.check(*sequence);
  }
}

TEST("a block that is cut and written anew has the mean of its new tokens") {
  for (const KvFormat format : {KvFormat::kFloat32, KvFormat::kBFloat16, KvFormat::kQ8}) {
    Cache cache(format);
    Sequence sequence = cache.empty();
    cache.append(sequence, 300);
    const auto fork = cache.fork(sequence);
    for (const int64_t length : {290, 261, 128, 100, 64, 7}) {
      cache.truncate(sequence, length);
      cache.append(sequence, 37);
      cache.check(sequence);
    }
    cache.check(*fork);  // shares what the other one cut
  }
}

TEST_MAIN()
