// Values that are not finite, on the GPU: who sees such a token is told by NaN, and no other row is. In every format of pages, and however
// the token is appended. The same of the CPU is in test/native/cpu/faulty_values_test.cpp.
#include <algorithm>
#include <limits>
#include <numeric>

#include "backend/backend.h"
#include "kernels/gpu.h"

using namespace longview;

namespace {

constexpr int64_t kHeads = 8, kKvHeads = 2, kGroup = kHeads / kKvHeads, kFaultyHead = 1;  // of the KV heads; the other one is sound
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Tokens first .. end - 1 have a dim of V that is `value`.
struct Fault {
  int64_t first, end;
  float value;
};

struct Shape {
  KvFormat format;
  int64_t head_dim;
  RopePairing pairing;
};

// One layer whose first `tokens` are appended together, and the others not yet.
class Layer {
 public:
  Layer(const Shape& of, int64_t length, const Fault& fault, int64_t tokens) : shape_{1, kKvHeads, of.head_dim, of.format}, appended_(tokens) {
    shape_.mean_tokens = backend_->sparse_block_tokens(shape_);
    storage_ = backend_->allocate_kv(shape_, pages_of(length));
    slots_.resize(static_cast<size_t>(pages_of(length)));
    std::iota(slots_.begin(), slots_.end(), 0);
    RopeConfig still;  // every position is turned by nothing
    still.dims = of.head_dim == 256 ? 64 : of.head_dim;
    still.inverse_frequencies.assign(static_cast<size_t>(still.dims / 2), 0.0);
    still.pairing = of.pairing;
    rope_ = backend_->upload_rope(still);
    std::mt19937_64 random(1);
    const auto filled = [&](int64_t heads, bool faulty) {
      const Activation x = backend_->allocate(length, heads * of.head_dim);
      std::vector<uint16_t> values = gpu::random_bf16(static_cast<size_t>(length * heads * of.head_dim), random);
      for (int64_t t = fault.first; t < fault.end && faulty; ++t) values[static_cast<size_t>((t * heads + kFaultyHead) * of.head_dim + t % of.head_dim)] = float_to_bf16(fault.value);
      GPU(copy_to_device(x.data, values.data(), values.size() * 2, gpu::stream()));
      GPU(synchronize(gpu::stream()));
      return x;
    };
    q_ = filled(kHeads, false);
    k_ = filled(kKvHeads, false);
    v_ = filled(kKvHeads, true);
    out_ = backend_->allocate(length, kHeads * of.head_dim);
    backend_->rope_and_append_kv(rows(q_, 0, tokens), rows(k_, 0, tokens), rows(v_, 0, tokens), *rope_, shape_, 0, pages(tokens), 0);
  }

  // The next token by itself, and its row of results.
  std::vector<float> append() {
    const int64_t t = appended_++;
    const Activation out = rows(out_, t, 1);
    backend_->append_and_attend(rows(q_, t, 1), rows(k_, t, 1), rows(v_, t, 1), {}, *rope_, shape_, kHeads, {0}, pages(t + 1), t, out);
    return read(out);
  }
  // Rows first .. first + count - 1, each of kHeads * head_dim; no plan: dense.
  std::vector<float> attend(int64_t first, int64_t count, const HeadPlan* plan = nullptr) {
    const Activation q = rows(q_, first, count), out = rows(out_, first, count);
    if (plan) backend_->attention_sparse(q, shape_, kHeads, {0}, pages(first + count), first, std::vector<HeadPlan>(kHeads, *plan), out);
    else backend_->attention(q, shape_, kHeads, {0}, pages(first + count), first, out);
    return read(out);
  }
  std::vector<std::byte> page(int64_t number) const {
    std::vector<std::byte> bytes(static_cast<size_t>(storage_->page_bytes()));
    backend_->read_page(*storage_, slots_[static_cast<size_t>(number)], bytes);
    return bytes;
  }
  // What the row has for the heads of a KV head.
  std::span<const float> part(const std::vector<float>& out, int64_t row, int64_t kv_head) const {
    const int64_t d = shape_.head_dim;
    return std::span(out).subspan(static_cast<size_t>((row * kHeads + kv_head * kGroup) * d), static_cast<size_t>(kGroup * d));
  }

 private:
  Activation rows(Activation x, int64_t first, int64_t count) const { return backend_->rows(x, first, count); }
  KvPages pages(int64_t length) const { return {storage_.get(), std::span(slots_).first(static_cast<size_t>(pages_of(length)))}; }
  std::vector<float> read(Activation x) const {
    std::vector<float> all, row(static_cast<size_t>(x.cols));
    for (int64_t r = 0; r < x.rows; ++r) {
      backend_->read_row(x, r, row);
      all.insert(all.end(), row.begin(), row.end());
    }
    return all;
  }

  std::unique_ptr<Backend> backend_ = cuda::make_backend(gpu::library(), {});
  KvShape shape_;
  int64_t appended_;
  std::unique_ptr<KvStorage> storage_;
  std::unique_ptr<DeviceRope> rope_;
  std::vector<int32_t> slots_;
  Activation q_, k_, v_, out_;
};

bool all_finite(std::span<const float> row) { return std::all_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); }); }
bool none_finite(std::span<const float> row) { return std::none_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); }); }

template <typename Body>
void each_shape(const Body& body) {
  for (const KvFormat format : {KvFormat::kBFloat16, KvFormat::kQ8, KvFormat::kE4M3, KvFormat::kQ4}) {
    if (format == KvFormat::kE4M3 && !cuda::make_backend(gpu::library(), {})->why_not_e4m3_kv().empty()) continue;
    for (const int64_t head_dim : {64, 96, 128, 256})
      for (const RopePairing pairing : {RopePairing::kHalfSplit, RopePairing::kAdjacent}) body(Shape{format, head_dim, pairing});
  }
}

}  // namespace

TEST("rows before it are what they were, and those that see it are NaN") {
  constexpr int64_t kTokens = 1200;
  each_shape([](const Shape& shape) {
    Layer sound(shape, kTokens, {0, 0, 0}, kTokens);
    const std::vector<float> expected = sound.attend(0, kTokens);
    for (const Fault& fault : {Fault{0, 1, kInfinity}, Fault{200, 201, -kInfinity}, Fault{255, 256, std::numeric_limits<float>::quiet_NaN()}, Fault{256, 257, 0x1p127f}, Fault{512, kTokens, kInfinity}}) {
      Layer layer(shape, kTokens, fault, kTokens);
      const std::vector<float> out = layer.attend(0, kTokens);
      // A page of e4m3 has one scale for all that is written at once, and one of q4 a reference.
      const int64_t first = fault.first, same = shape.format == KvFormat::kE4M3 || shape.format == KvFormat::kQ4 ? first / kPageTokens * kPageTokens : first;
      int64_t wrong = 0;
      for (int64_t row = 0; row < kTokens; ++row)
        for (int64_t head = 0; head < kKvHeads; ++head) {
          const std::span<const float> got = layer.part(out, row, head), wanted = sound.part(expected, row, head);
          if (head != kFaultyHead || row < same) wrong += !std::equal(got.begin(), got.end(), wanted.begin());
          else wrong += row < first ? !all_finite(got) : !none_finite(got);
        }
      CHECK(wrong == 0);
      // A single row, over pages that hold more than it sees; a few.
      if (first > 0) CHECK(all_finite(layer.attend(first - 1, 1)));
      if (first > 3) CHECK(all_finite(layer.attend(first - 3, 3)));
      for (const int64_t row : {first, first + 1, kTokens - 1}) CHECK(none_finite(layer.part(layer.attend(row, 1), 0, kFaultyHead)));
    }
  });
}

TEST("a token that is appended by itself leaves the page that a chunk would") {
  constexpr int64_t kTokens = 260;
  each_shape([](const Shape& shape) {
    if (shape.head_dim == 96) return;  // the backend keeps the queries of the last append alone
    for (const int64_t first : {250, 256}) {
      const Fault fault{first, first + 1, kInfinity};
      Layer layer(shape, kTokens, fault, 249), chunk(shape, kTokens, fault, kTokens);
      for (int64_t t = 249; t < kTokens; ++t) {
        const std::vector<float> row = layer.append();
        for (int64_t head = 0; head < kKvHeads; ++head) CHECK(head == kFaultyHead && t >= first ? none_finite(layer.part(row, 0, head)) : all_finite(layer.part(row, 0, head)));
      }
      const std::vector<float> before = layer.attend(0, kTokens);
      for (int64_t row = 0; row < first; ++row) CHECK(all_finite(layer.part(before, row, kFaultyHead)));
      for (int64_t row = first; row < kTokens; ++row) CHECK(none_finite(layer.part(before, row, kFaultyHead)));
      if (shape.format == KvFormat::kE4M3 || shape.format == KvFormat::kQ4) continue;  // what begins a page chooses its scale, or its reference
      for (int64_t page = 0; page < pages_of(kTokens); ++page) CHECK(layer.page(page) == chunk.page(page));
    }
  });
}

TEST("sparse attention keeps to that") {
  constexpr int64_t kTokens = 8000, kFirst = 3000, kFaulty = 5000;
  for (const Pattern pattern : {Pattern::kAdaptive, Pattern::kAShape, Pattern::kVerticalSlash, Pattern::kBlockSparse})
    each_shape([&](const Shape& shape) {
      if (shape.pairing == RopePairing::kAdjacent) return;
      Layer layer(shape, kTokens, {kFaulty, kFaulty + 1, kInfinity}, kTokens);
      const HeadPlan plan = default_plan(pattern);
      const std::vector<float> out = layer.attend(kFirst, kTokens - kFirst, &plan);
      int64_t wrong = 0;
      for (int64_t row = kFirst; row < kTokens; ++row) {
        wrong += !all_finite(layer.part(out, row - kFirst, 1 - kFaultyHead));
        if (row < kFaulty) wrong += !all_finite(layer.part(out, row - kFirst, kFaultyHead));
        else if (row == kFaulty || pattern == Pattern::kAdaptive) wrong += !none_finite(layer.part(out, row - kFirst, kFaultyHead));  // the others leave keys out
      }
      CHECK(wrong == 0);
    });
}

TEST_MAIN()
