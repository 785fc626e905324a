// Values that are not finite: who sees such a token is told by NaN, and no other row is. On every code path and in every format of pages.
#include <algorithm>
#include <limits>
#include <random>

#include "backend/backend.h"
#include "check.h"

using namespace longview;

namespace {

constexpr int64_t kHeads = 2, kDims = 64, kTokens = 1200, kBlock = 32;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Tokens first .. end - 1 have a dim of V that is `value`.
struct Fault {
  int64_t first, end;
  float value;
};
const Fault kFaults[] = {{0, 1, kInfinity},
                         {200, 201, -kInfinity},
                         {255, 256, std::numeric_limits<float>::quiet_NaN()},
                         {256, 257, std::numeric_limits<float>::max()},  // infinite when it is rounded to bf16
                         {512, kTokens, kInfinity}};                     // all that one thread reads, where several share a row

// One layer with one KV head.
class Layer {
 public:
  Layer(const CpuOptions& options, KvFormat format, const Fault& fault) : backend_(make_cpu_backend(options)), shape_{1, 1, kDims, format, kBlock} {
    storage_ = backend_->allocate_kv(shape_, pages_of(kTokens));
    for (int32_t page = 0; page < pages_of(kTokens); ++page) slots_.push_back(page);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    Activation k = backend_->allocate(kTokens, kDims), v = backend_->allocate(kTokens, kDims);
    q_ = backend_->allocate(kTokens, kHeads * kDims);
    for (const Activation& x : {q_, k, v}) std::generate_n(static_cast<float*>(x.data), x.rows * x.cols, [&] { return normal(random); });
    for (int64_t t = fault.first; t < fault.end; ++t) static_cast<float*>(v.data)[t * kDims + t % kDims] = fault.value;
    RopeConfig still;  // every position is turned by nothing
    still.inverse_frequencies.assign(kDims / 2, 0.0);
    still.dims = kDims;
    backend_->rope_and_append_kv(q_, k, v, *backend_->upload_rope(still), shape_, 0, {storage_.get(), slots_}, 0);
  }

  // Rows first .. first + count - 1, each of kHeads * kDims; no plan: dense.
  std::vector<float> attend(int64_t first, int64_t count, const HeadPlan* plan = nullptr) {
    const Activation q = backend_->rows(q_, first, count), out = backend_->allocate(count, kHeads * kDims);
    const KvPages pages{storage_.get(), std::span(slots_).first(static_cast<size_t>(pages_of(first + count)))};
    if (plan) backend_->attention_sparse(q, shape_, kHeads, {0}, pages, first, std::vector<HeadPlan>(kHeads, *plan), out);
    else backend_->attention(q, shape_, kHeads, {0}, pages, first, out);
    const auto* data = static_cast<const float*>(out.data);
    return {data, data + count * kHeads * kDims};
  }

 private:
  std::unique_ptr<Backend> backend_;
  KvShape shape_;
  std::unique_ptr<KvStorage> storage_;
  std::vector<int32_t> slots_;
  Activation q_;
};

bool all_finite(std::span<const float> row) { return std::all_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); }); }
bool none_finite(std::span<const float> row) { return std::none_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); }); }
std::span<const float> row_of(const std::vector<float>& out, int64_t row) { return std::span(out).subspan(static_cast<size_t>(row * kHeads * kDims), kHeads * kDims); }

template <typename Body>
void each_path(const Body& body) {
  for (const std::string& isa : available_cpu_isas())
    for (const KvFormat format : {KvFormat::kFloat32, KvFormat::kBFloat16, KvFormat::kQ8, KvFormat::kQ4})
      for (const Precision precision : {Precision::kAuto, Precision::kFloat32}) body(CpuOptions{2, precision, isa}, format);
}

}  // namespace

TEST("rows before it are what they were, and those that see it are NaN") {
  each_path([](const CpuOptions& options, KvFormat format) {
    Layer sound(options, format, {0, 0, 0});
    const std::vector<float> expected = sound.attend(0, kTokens);
    for (const Fault& fault : kFaults) {
      const int64_t first = fault.first;
      Layer layer(options, format, fault);
      const std::vector<float> out = layer.attend(0, kTokens);
      // In 4 bits keys are kept less the mean of their page, which a key that is none does not count to.
      const int64_t same = format == KvFormat::kQ4 ? first / kPageTokens * kPageTokens : first;
      CHECK(std::equal(out.begin(), out.begin() + same * kHeads * kDims, expected.begin()));
      for (int64_t row = same; row < first; ++row) CHECK(all_finite(row_of(out, row)));
      for (int64_t row = first; row < kTokens; ++row) CHECK(none_finite(row_of(out, row)));
      // A single row, over pages that hold more than it sees.
      if (first > 0) CHECK(all_finite(layer.attend(first - 1, 1)));
      for (const int64_t row : {first, first + 1, kTokens - 1}) CHECK(none_finite(layer.attend(row, 1)));
    }
  });
}

TEST("sparse attention keeps to that") {
  constexpr int64_t kFirst = 500, kFaulty = 650;
  each_path([](const CpuOptions& options, KvFormat format) {
    Layer layer(options, format, {kFaulty, kFaulty + 1, kInfinity});
    for (const Pattern pattern : {Pattern::kAShape, Pattern::kVerticalSlash, Pattern::kBlockSparse, Pattern::kAdaptive}) {
      const HeadPlan plan = default_plan(pattern);
      const std::vector<float> out = layer.attend(kFirst, kTokens - kFirst, &plan);
      for (int64_t row = kFirst; row < kFaulty; ++row) CHECK(all_finite(row_of(out, row - kFirst)));
      // The others leave keys out.
      for (int64_t row = kFaulty; row < (pattern == Pattern::kAdaptive ? kTokens : kFaulty + 1); ++row) CHECK(none_finite(row_of(out, row - kFirst)));
    }
  });
}

TEST_MAIN()
