#include "cuda/experts.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace longview::cuda {
namespace {

// So many tokens at most read their experts' matrices as they are stored, each for itself. More share what they read; quantised matrices have
// to become bf16 then, all of a layer, which takes as long as some seventy tokens (H200).
constexpr int64_t kFewTokens = 8, kFewTokensQuantised = 64;

// Parts of the scratch, one behind the other.
class Parts {
 public:
  explicit Parts(char* base = nullptr) : base_(base) {}
  template <typename T>
  T* take(int64_t count) {
    T* at = reinterpret_cast<T*>(base_ + bytes_);
    bytes_ += (count * static_cast<int64_t>(sizeof(T)) + 255) / 256 * 256;
    return at;
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* base_;
  int64_t bytes_ = 0;
};

}  // namespace

struct ExpertMixture::Shape {
  int64_t tokens, experts, used, hidden, ffn;
  int64_t rows() const { return kernels::grouped_rows(tokens, experts, used); }
};

struct ExpertMixture::Choice {
  float *scores, *shares;                      // [tokens, experts], [tokens, used]
  int32_t *chosen, *counts, *places;           // [tokens, used], [experts], [tokens, used]
  int32_t *row_tokens, *groups;                // [rows], [rows / kGroupRows]
  uint16_t *x, *gate, *up;                     // bf16 [rows, hidden], [rows, ffn] twice
  int64_t bytes;

  Choice(const Shape& s, char* base) {
    Parts parts(base);
    scores = parts.take<float>(s.tokens * s.experts);
    shares = parts.take<float>(s.tokens * s.used);
    chosen = parts.take<int32_t>(s.tokens * s.used);
    counts = parts.take<int32_t>(s.experts);
    places = parts.take<int32_t>(s.tokens * s.used);
    row_tokens = parts.take<int32_t>(s.rows());
    groups = parts.take<int32_t>(s.rows() / kernels::kGroupRows);
    x = parts.take<uint16_t>(s.rows() * s.hidden);
    gate = parts.take<uint16_t>(s.rows() * s.ffn);
    up = parts.take<uint16_t>(s.rows() * s.ffn);
    bytes = parts.bytes();
  }
};

int64_t ExpertMixture::scratch_bytes(const ModelConfig& c, int64_t tokens) {
  if (c.experts == 0) return 0;
  return Choice(Shape{tokens, c.experts, c.experts_used, c.hidden, c.ffn}, nullptr).bytes;
}

std::string ExpertMixture::why_not(const ModelConfig& c) {
  if (c.experts == 0 || kernels::experts_fit(c.experts, c.experts_used)) return "";
  return format("This model has %lld experts in a layer, %lld for each token; the GPU code takes up to %lld and %lld.", static_cast<long long>(c.experts), static_cast<long long>(c.experts_used),
                static_cast<long long>(kernels::kMostExperts), static_cast<long long>(kernels::kMostExpertsUsed));
}

void ExpertMixture::add(Activation sum, const Products::Norm& norm, const Experts& experts) {
  const Activation x = norm.normed;
  const CudaWeight &router = cuda(*experts.router), &gates = cuda(*experts.gates), &downs = cuda(*experts.downs);
  LONGVIEW_CHECK(experts.clamped == (experts.gate_biases != nullptr), kInternal, "the kernels have biased experts and clamped ones together");
  const Shape shape{x.rows, router.rows, experts.used, x.cols, gates.rows / router.rows};
  scratch_.grow(device_, Choice(shape, nullptr).bytes, "the experts' rows");
  const Choice choice(shape, scratch_.as<char>());
  const Projection scores{experts.router, experts.router_bias, {choice.scores, x.rows, shape.experts, true}};
  if (!products_.multiply_row(sum, {&scores, 1}, kernels::MatvecResult::kWrite, &norm)) {
    check(library_.rms_norm({sum.data, element(sum), cuda(norm.weight).buffer->as<float>(), x.data, x.rows, x.cols, norm.epsilon}, device_.stream()));
    products_.multiply(x, *experts.router, experts.router_bias, scores.out);
  }
  check(library_.choose_experts({choice.scores, choice.chosen, choice.shares, shape.tokens, shape.experts, shape.used, experts.normalised}, device_.stream()));
  const bool quantised = gates.type != kernels::WeightType::kBFloat16 && downs.type != kernels::WeightType::kBFloat16;
  const bool fits = x.rows > 1 || (kernels::expert_gates_fit(shape.hidden) && kernels::expert_downs_fit(shape.used, downs.cols));
  const bool few = x.rows <= (quantised ? kFewTokensQuantised : kFewTokens) && gates.type == cuda(*experts.ups).type && fits;
  if (few) add_few(x, experts, shape, choice, sum);
  else add_many(x, experts, shape, choice, sum);
}

void ExpertMixture::add_few(Activation x, const Experts& experts, const Shape& s, const Choice& c, Activation sum) {
  const CudaWeight &gates = cuda(*experts.gates), &ups = cuda(*experts.ups), &downs = cuda(*experts.downs);
  const int32_t exact = s.tokens > 1;  // codes are for what is decoded, as elsewhere
  check(library_.expert_gates({x.data, gates.type, gates.buffer->as(), ups.buffer->as(), c.chosen, c.gate, s.tokens, s.used, s.ffn, s.hidden, exact, floats(experts.gate_biases), floats(experts.up_biases)},
                              device_.stream()));
  check(library_.expert_downs({c.gate, downs.type, downs.buffer->as(), c.chosen, c.shares, static_cast<float*>(sum.data), s.tokens, s.used, s.hidden, s.ffn, exact, floats(experts.down_biases)}, device_.stream()));
}

void ExpertMixture::add_many(Activation x, const Experts& experts, const Shape& s, const Choice& c, Activation sum) {
  const auto multiply = [&](const void* rows, const DeviceWeight& weight, void* out) { products_.multiply_groups(rows, s.rows(), weight, c.groups, s.experts, out); };
  check(library_.group_experts({c.chosen, c.counts, c.places, c.row_tokens, c.groups, s.tokens, s.experts, s.used}, device_.stream()));
  check(library_.gather_rows({x.data, c.row_tokens, c.groups, c.x, s.rows(), s.hidden}, device_.stream()));
  multiply(c.x, *experts.gates, c.gate);
  multiply(c.x, *experts.ups, c.up);
  if (experts.gate_biases) check(library_.activate_experts({c.gate, c.up, c.groups, floats(experts.gate_biases), floats(experts.up_biases), s.rows(), s.ffn}, device_.stream()));
  else check(library_.gate_mul({c.gate, c.up, s.rows() * s.ffn}, device_.stream()));
  multiply(c.gate, *experts.downs, c.x);
  check(library_.combine_experts({c.x, c.places, c.shares, static_cast<float*>(sum.data), s.tokens, s.used, s.hidden, c.chosen, floats(experts.down_biases)}, device_.stream()));
}

}  // namespace longview::cuda
