// The operations of backend.h on an NVIDIA GPU: shapes become the kernels' arguments, work is queued on one stream.
//
// Activations are bf16, but for the residual stream and the logits, which are float32 (allocate_float). Products add up in
// float32. The work on a single token is hundreds of small kernels: run_token() launches them as one graph (decode_step.h).
#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_map>

#include "backend/backend.h"
#include "base/half.h"
#include "cuda/attention.h"
#include "cuda/decode_step.h"
#include "cuda/delta_net.h"
#include "cuda/device.h"
#include "cuda/experts.h"
#include "cuda/focus.h"
#include "cuda/library.h"
#include "cuda/page_tables.h"
#include "cuda/products.h"
#include "cuda/rope.h"
#include "cuda/sparse_attention.h"
#include "cuda/weights.h"

namespace longview {
namespace cuda {
namespace {

// Sparse reading of the Llama-3-8B shape is 4 to 6 % slower in chunks of 4,096 to 8,192 tokens (H200, fp8 weights); dense reading
// hardly, and there a chunk of a million tokens' end takes seconds, which cancelling and answers wait for.
constexpr int64_t kChunkTokens = 4096, kSparseChunkTokens = 16384;
// Dense attention reads shorter prompts in about a second, and blocks of a page are a coarse choice for small models.
constexpr int64_t kSparseFrom = 65536;
// Partial results of split attention, at most what the device holds at once; cuBLASLt's workspace; tables.
constexpr int64_t kScratchBytes = int64_t{128} << 20;

// Instructions that turn e4m3 into fp16.
bool converts_e4m3(const kernels::DeviceProperties& p) { return p.major * 10 + p.minor >= 89; }

int64_t element_bytes(Activation x) { return x.wide ? 4 : 2; }

class CudaBackend final : public Backend {
 public:
  CudaBackend(const kernels::Library& library, const GpuOptions& options)
      : device_(library, 0), library_(library), e4m3_(options.weights == GpuWeights::kFp8 && has_e4m3(device_.properties())), uploader_(device_, e4m3_), products_(device_) {}

  ~CudaBackend() override { settle(); }

  DeviceInfo info() const override {
    const kernels::DeviceProperties& p = device_.properties();
    const Blas* blas = products_.blas();
    DeviceInfo info;
    info.kind = "cuda";
    info.isa = format("sm%d%d", p.major, p.minor);
    info.name = format("%s, compute capability %d.%d%s%s%s", p.name, p.major, p.minor, blas ? ", " : "", blas ? blas->name().c_str() : "", e4m3_ ? ", fp8 weights" : "");
    info.arithmetic = e4m3_ ? " fp8" : "";
    info.memory_bytes = p.memory_bytes;
    info.free_memory_bytes = device_.free_memory();
    return info;
  }

  int64_t preferred_chunk_tokens(bool sparse) const override { return sparse ? kSparseChunkTokens : kChunkTokens; }

  int64_t weight_bytes(const TensorView& weight, WeightUse use) const override { return uploader_.bytes_of(weight, use); }
  double few_tokens_cost(const TensorView& weight) const override { return uploader_.few_tokens_cost(weight); }
  int64_t activation_bytes() const override { return 2; }
  int64_t kv_page_bytes(const KvShape& shape) const override { return CudaKvStorage::page_bytes(shape); }
  std::string why_not_e4m3_kv() const override {
    const kernels::DeviceProperties& p = device_.properties();
    return converts_e4m3(p) ? "" : format("%s, this one has %d.%d", Backend::why_not_e4m3_kv().c_str(), p.major, p.minor);
  }
  int64_t kv_scratch_page_bytes(const KvShape& shape) const override { return PageTables::expanded_page_bytes(shape); }
  int64_t scratch_bytes(const ModelConfig& c, int64_t chunk_tokens) const override {
    const int64_t matrix = 2 * c.hidden * std::max({c.ffn * std::max<int64_t>(c.experts, 1), c.q_dim() * (c.attention_gate ? 2 : 1), c.recurrent.channels()});  // a quantised one as bf16
    const int64_t heads = page_dim(c.head_dim) == c.head_dim ? 0 : 2 * 2 * chunk_tokens * c.heads * page_dim(c.head_dim);
    const int64_t ropes = c.rope.sliding_inverse_frequencies.empty() ? 1 : 2, angles = ropes * 2 * 4 * chunk_tokens * c.rope.dims / 2;
    const int64_t codes = e4m3_ ? kernels::e4m3_bytes(chunk_tokens, std::max({c.hidden, c.ffn, c.q_dim(), c.recurrent.value_dim()})) : 0;
    return matrix + heads + angles + codes + ExpertMixture::scratch_bytes(c, chunk_tokens) + DeltaNet::scratch_bytes(c, chunk_tokens) + kScratchBytes;
  }

  WeightHandle upload(const TensorView& view, WeightUse use) override {
    auto weight = uploader_.upload(view, use);
    products_.expect(*weight);
    return weight;
  }

  WeightHandle upload_experts(std::span<const TensorView> matrices) override { return uploader_.upload_all(matrices); }

  std::unique_ptr<DeviceRope> upload_rope(const RopeConfig& config) override { return std::make_unique<CudaRope>(device_, config); }

  Activation allocate(int64_t rows, int64_t cols) override { return make(rows, cols, false); }
  Activation allocate_float(int64_t rows, int64_t cols) override { return make(rows, cols, true); }
  void release(Activation& activation) override {
    settle();
    step_.forget();
    buffers_.erase(activation.data);
    activation = {};
  }
  Activation rows(Activation x, int64_t first, int64_t count) const override {
    return {static_cast<char*>(x.data) + first * x.cols * element_bytes(x), count, x.cols, x.wide};
  }

  std::unique_ptr<KvStorage> allocate_kv(const KvShape& shape, int64_t pages) override {
    LONGVIEW_CHECK(shape.format != KvFormat::kFloat32, kInvalidArgument, "On the GPU the KV state is kept in bf16, in 8 or in 4 bits.");
    LONGVIEW_CHECK(shape.mean_tokens == 0 || shape.mean_tokens == kPageTokens, kInternal, "on the GPU means are those of pages");
    tables_.forget();
    return std::make_unique<CudaKvStorage>(device_, shape, pages);
  }
  void copy_page(KvStorage& storage, int32_t from, int32_t to, int64_t) override {
    settle();
    auto& pages = static_cast<CudaKvStorage&>(storage);
    void* target = pages.page(to);
    check(library_.copy_on_device(target, pages.page(from), static_cast<size_t>(pages.page_bytes()), device_.stream()), "copying a page of the KV state");
  }
  // Its memory stays for the next context, but not what was no number in it: a page is multiplied as a whole, also behind a context's end,
  // and no weight makes that nothing.
  void discard_page(KvStorage& storage, int32_t page) override { static_cast<CudaKvStorage&>(storage).clear(page); }
  void read_page(KvStorage& storage, int32_t page, std::span<std::byte> out) override {
    settle();
    check(library_.copy_to_host(out.data(), static_cast<CudaKvStorage&>(storage).page(page), out.size(), device_.stream()), "reading a page of the KV state");
    check(library_.synchronize(device_.stream()), "reading a page of the KV state");
  }
  void write_page(KvStorage& storage, int32_t page, std::span<const std::byte> bytes) override {
    settle();
    check(library_.copy_to_device(static_cast<CudaKvStorage&>(storage).page(page), bytes.data(), bytes.size(), device_.stream()), "loading a page of the KV state");
    check(library_.synchronize(device_.stream()), "loading a page of the KV state");
  }

  int64_t recurrent_bytes(const RecurrentShape& shape) const override { return DeltaNet::state_bytes(shape); }
  std::unique_ptr<RecurrentState> allocate_recurrent(const RecurrentShape& shape) override {
    return std::make_unique<CudaRecurrentState>(Buffer(device_, DeltaNet::state_bytes(shape), "a conversation's recurrent state"));
  }
  void clear_recurrent(RecurrentState& state) override {
    const Buffer& buffer = cuda(state).buffer;
    check(library_.fill(buffer.as(), 0, static_cast<size_t>(buffer.bytes()), device_.stream()), "beginning a recurrent state");
  }
  void read_recurrent(const RecurrentState& state, std::span<std::byte> out) override {
    check(library_.copy_to_host(out.data(), cuda(state).buffer.as(), out.size(), device_.stream()), "reading a recurrent state");
    check(library_.synchronize(device_.stream()), "reading a recurrent state");
  }
  void write_recurrent(RecurrentState& state, std::span<const std::byte> bytes) override {
    check(library_.copy_to_device(cuda(state).buffer.as(), bytes.data(), bytes.size(), device_.stream()), "loading a recurrent state");
    check(library_.synchronize(device_.stream()), "loading a recurrent state");
  }

  void run_token(const TokenStep& token, const std::function<void()>& work) override {
    CudaRope* const ropes[] = {&cuda(*token.ropes[0]), &cuda(*token.ropes[1])};
    const auto forget_tables = [&] {
      for (CudaRope* rope : ropes) rope->forget();
    };
    const int64_t length = token.position + 1, partial_floats = attention_.reserve(token);
    const auto key = [&] {
      const auto [partial, queries, results] = attention_.buffers();
      return DecodeStep::Key{token.caller, token.pages.storage, {ropes[0], ropes[1]},
                             {tables_.pointers(), partial, queries, results, experts_.scratch(), ropes[0]->cosine(), ropes[0]->sine(), ropes[1]->cosine(), ropes[1]->sine()},
                             partial_floats, token.shape.mean_tokens > 0 && length % kPageTokens == 0 ? token.position / kPageTokens : -1};
    };
    forget_tables();  // the work makes those of this position
    try {
      const auto address = [](const RecurrentState* state) { return state ? cuda(*state).buffer.as() : nullptr; };
      step_.run({token.position, token.token, {address(token.states.before), address(token.states.after)}}, key, work);
    } catch (...) {
      forget_tables();  // what was recorded half-way does not run
      throw;
    }
    forget_tables();
  }

  void embed(const DeviceWeight& embedding, std::span<const int32_t> tokens, float scale, Activation out) override {
    LONGVIEW_CHECK(out.wide, kInternal, "the residual stream must be float32");
    const int32_t* ids = step_.token();
    if (!ids) {
      tokens_.grow(device_, static_cast<int64_t>(tokens.size_bytes()), "the tokens");
      check(library_.copy_to_device(tokens_.as(), tokens.data(), tokens.size_bytes(), device_.stream()), "sending tokens");
      ids = tokens_.as<int32_t>();
    }
    const CudaWeight& w = cuda(embedding);
    check(library_.embed({w.buffer->as(), w.type, ids, static_cast<float*>(out.data), out.rows, out.cols, scale}, device_.stream()), "looking up embeddings");
  }

  Activation for_products(Activation x, std::initializer_list<const DeviceWeight*> weights) override { return products_.prepared(x, weights); }

  void rms_norm(Activation x, const DeviceWeight& weight, float epsilon, Activation out) override {
    check(library_.rms_norm({x.data, element(x), cuda(weight).buffer->as<float>(), out.codes ? out.codes : out.data, x.rows, x.cols, epsilon, out.codes != nullptr}, device_.stream()), "normalising");
  }

  void linear(Activation x, const DeviceWeight& weight, const DeviceWeight* bias, Activation out) override { products_.multiply(x, weight, bias, out); }

  void linear_all(Activation x, std::span<const Projection> projections) override {
    // What one launch does not take, weights of several types or too many, a few launches do.
    for (size_t count = projections.size(); x.rows == 1 && count > 0; --count)
      if (products_.multiply_row(x, projections.first(count), kernels::MatvecResult::kWrite)) return linear_all(x, projections.subspan(count));
    if (!projections.empty()) Backend::linear_all(products_.shared(x, projections), projections);
  }

  void norm_linear_all(Activation x, const DeviceWeight& norm, float epsilon, Activation normed, std::span<const Projection> projections) override {
    multiply_normed(x, {norm, epsilon, normed}, projections);
  }

  void linear_add(Activation x, const DeviceWeight& weight, const DeviceWeight* bias, Activation scratch, Activation sum) override {
    LONGVIEW_CHECK(sum.wide, kInternal, "the residual stream must be float32");
    if (!products_.add(x, weight, bias, sum)) Backend::linear_add(x, weight, bias, scratch, sum);
  }

  void linear_gated(Activation x, const DeviceWeight& gate, const DeviceWeight& up, GateCurve curve, Activation scratch, Activation out) override {
    const std::array<Projection, 2> halves{{{&gate, nullptr, out}, {&up, nullptr, scratch}}};
    if (out.codes) {
      linear_all(x, halves);
      check(library_.gate_mul_quantize({out.data, scratch.data, out.codes, out.rows, out.cols, of(curve)}, device_.stream()), "activating");
    } else if (!products_.multiply_row(x, halves, kernels::MatvecResult::kGated, nullptr, curve)) {
      Backend::linear_gated(x, gate, up, curve, scratch, out);
    }
  }

  void norm_linear_gated(Activation x, const DeviceWeight& norm, float epsilon, Activation normed, const DeviceWeight& gate, const DeviceWeight& up, GateCurve curve, Activation scratch, Activation out) override {
    const Products::Norm first{norm, epsilon, normed};
    const std::array<Projection, 2> halves{{{&gate, nullptr, out}, {&up, nullptr, scratch}}};
    if (!products_.multiply_row(x, halves, kernels::MatvecResult::kGated, &first, curve)) Backend::norm_linear_gated(x, norm, epsilon, normed, gate, up, curve, scratch, out);
  }

  void norm_add_experts(Activation sum, const DeviceWeight& norm, float epsilon, Activation normed, const Experts& experts) override {
    experts_.add(sum, {norm, epsilon, normed, true}, experts);
  }

  void rms_norm_heads(Activation q, const DeviceWeight& q_weight, Activation k, const DeviceWeight& k_weight, int64_t head_dim, float epsilon) override {
    check(library_.rms_norm_heads({q.data, cuda(q_weight).buffer->as<float>(), q.rows * (q.cols / head_dim), k.data, cuda(k_weight).buffer->as<float>(), k.rows * (k.cols / head_dim), head_dim, epsilon}, device_.stream()),
          "normalising heads");
  }

  void scale_queries(Activation q, const RopeConfig& rope, int64_t first_position) override {
    check(library_.scale_queries({q.data, q.rows, q.cols, first_position, rope.query_growth, rope.query_span, step_.position()}, device_.stream()), "scaling queries");
  }

  void split_gates(Activation both, int64_t head_dim, Activation q, Activation gates) override {
    check(library_.split_heads({both.data, q.data, gates.data, q.rows, q.cols / head_dim, head_dim}, device_.stream()), "taking gates apart");
  }
  void multiply_gates(Activation x, Activation gates) override { check(library_.sigmoid_mul({x.data, gates.data, x.rows * x.cols}, device_.stream()), "opening gates"); }

  void scale_rows(Activation x, Activation input, const DeviceWeight& weight) override {
    check(library_.scale_rows({x.data, input.data, cuda(weight).buffer->as<float>(), x.rows, x.cols, input.cols}, device_.stream()), "weighing the shared expert");
  }

  void delta_net(Activation mixed, Activation gate, Activation alpha, Activation beta, const DeltaWeights& weights, float epsilon, const RecurrentShape& shape, int64_t layer,
                 const RecurrentStates& states, Activation out) override {
    delta_net_.run({mixed, gate, alpha, beta}, weights, epsilon, shape, layer, states, step_.states(), out);
  }

  void norm_delta_net(Activation x, const DeviceWeight& norm, Activation normed, const DeltaProjections& projections, const DeltaWeights& weights, float epsilon, const RecurrentShape& shape, int64_t layer,
                      const RecurrentStates& states, Activation out) override {
    const auto& [mixed, gate, alpha, beta] = projections;
    if (x.rows != 1) return Backend::norm_delta_net(x, norm, normed, projections, weights, epsilon, shape, layer, states, out);
    // alpha and beta are two numbers of a head: they are made where they are used, a launch less.
    multiply_normed(x, {norm, epsilon, normed, true}, std::span(projections).first(2));
    delta_net_.run({mixed.out, gate.out, {}, {}, alpha.weight, beta.weight, normed}, weights, epsilon, shape, layer, states, step_.states(), out);
  }

  void rope_and_append_kv(Activation q, Activation k, Activation v, DeviceRope& rope, const KvShape& shape, int64_t layer, const KvPages& pages, int64_t first_position) override {
    attention_.rope_and_append_kv(q, k, v, rope, shape, layer, pages, first_position);
  }

  void attention(Activation q, const KvShape& shape, int64_t heads, const AttentionLayer& layer, const KvPages& pages, int64_t first_position, Activation out) override {
    attention_.attend(q, shape, heads, layer, pages, first_position, out);
  }

  void append_and_attend(Activation q, Activation k, Activation v, const HeadSteps& steps, DeviceRope& rope, const KvShape& shape, int64_t heads, const AttentionLayer& layer, const KvPages& pages, int64_t position, Activation out) override {
    if (!attention_.append_and_attend(*this, q, k, v, steps, rope, shape, heads, layer, pages, position, out)) Backend::append_and_attend(q, k, v, steps, rope, shape, heads, layer, pages, position, out);
  }

  int64_t sparse_block_tokens(const KvShape&) const override { return kPageTokens; }
  int64_t sparse_from() const override { return kSparseFrom; }

  void attention_sparse(Activation q, const KvShape& shape, int64_t heads, const AttentionLayer& layer, const KvPages& pages, int64_t first_position, std::span<const HeadPlan> plans, Activation out) override {
    const HeadGroups groups = group_heads(plans, shape.kv_heads, q.rows);
    if (!sparse_.takes(plans, groups, shape, layer, first_position + q.rows)) {
      sparse_.count_dense(shape, layer.index, q.rows, heads, first_position);
      return attention(q, shape, heads, layer, pages, first_position, out);
    }
    attention_.with_page_width(q, shape, heads, out, [&](const void* queries, void* results) { sparse_.attend({queries, results, q.rows, heads, first_position}, groups, shape, layer, pages); });
  }

  void take_coverage(std::span<HeadCoverage> out) override { sparse_.take_coverage(out); }

  bool add_focus(Activation q, const KvShape& shape, int64_t heads, const AttentionLayer& layer, const KvPages& pages, int64_t first_position, int64_t keys) override {
    const int64_t length = first_position + q.rows;
    const kernels::PagedKv kv = shape.format == KvFormat::kBFloat16 ? tables_.paged(shape, layer.index, pages, length) : tables_.expanded(shape, layer.index, pages, length);
    focus_.add({attention_.page_wide(q, shape), kv, q.rows, heads, first_position, nullptr, keys, nullptr, 0, floats(layer.sinks)});
    return true;
  }
  void take_focus(std::span<float> out) override { focus_.take(out); }

  void gate_mul(Activation gate, Activation up, GateCurve curve) override { check(library_.gate_mul({gate.data, up.data, gate.rows * gate.cols, of(curve)}, device_.stream()), "activating"); }

  void add(Activation x, Activation y) override {
    LONGVIEW_CHECK(x.wide && !y.wide, kInternal, "the residual stream must be float32, what is added bf16");
    check(library_.add({static_cast<float*>(x.data), y.data, x.rows * x.cols}, device_.stream()), "adding");
  }
  void add_normed(Activation sum, Activation x, const DeviceWeight& weight, float epsilon) override {
    LONGVIEW_CHECK(sum.wide && !x.wide, kInternal, "the residual stream must be float32, what is added bf16");
    if (x.cols > kernels::kMostAddNormedColumns) return Backend::add_normed(sum, x, weight, epsilon);
    check(library_.add_normed({static_cast<float*>(sum.data), x.data, cuda(weight).buffer->as<float>(), x.rows, x.cols, epsilon}, device_.stream()), "adding");
  }

  void read_row(Activation x, int64_t row, std::span<float> out) override {
    const Activation one = rows(x, row, 1);
    const auto count = static_cast<int64_t>(out.size()), bytes = count * element_bytes(one);
    void* from = row_.room(bytes);
    check(library_.copy_to_host(from, one.data, static_cast<size_t>(bytes), device_.stream()), "reading results");
    check(library_.synchronize(device_.stream()), "computing");
    if (one.wide) std::copy_n(static_cast<const float*>(from), count, out.begin());
    else std::transform(static_cast<const uint16_t*>(from), static_cast<const uint16_t*>(from) + count, out.begin(), bf16_to_float);
  }

  int32_t largest(Activation x, int64_t row) override {
    find_largest(x, row);
    return choices()[0];
  }

  Drawn draw(Activation x, int64_t row, const Sampling& sampling, uint64_t random) override {
    find_largest(x, row);
    weights_.grow(device_, library_.draw_weights(x.cols) * static_cast<int64_t>(sizeof(uint32_t)), "the weights to draw by");
    check(library_.draw({static_cast<const float*>(rows(x, row, 1).data), x.cols, choice_.as<int32_t>(), sampling.scale(), sampling.least_weight(), sampling.top_k, sampling.top_p, random, weights_.as<uint32_t>(),
                         choice_.as<int32_t>() + 1},
                        device_.stream()),
          "drawing");
    const std::span<const int32_t> both = choices();
    return {both[0], both[1]};
  }

 private:
  void check(kernels::Status status, const char* what) const { device_.check(status, what); }

  // The first launch norms a row for the others.
  void multiply_normed(Activation x, Products::Norm norm, std::span<const Projection> projections) {
    const bool keep = norm.keep;
    for (size_t count = projections.size(); x.rows == 1 && count > 0; --count) {
      norm.keep = keep || count < projections.size();
      if (products_.multiply_row(x, projections.first(count), kernels::MatvecResult::kWrite, &norm)) return linear_all(norm.normed, projections.subspan(count));
    }
    Backend::norm_linear_all(x, norm.weight, norm.epsilon, norm.normed, projections);
  }

  // Nothing is under way behind this. Called where nothing may be thrown: an error comes back with the next work.
  void settle() noexcept { library_.synchronize(device_.stream()); }

  Activation make(int64_t rows, int64_t cols, bool wide) {
    Buffer buffer(device_, rows * cols * (wide ? 4 : 2), "the workspace");
    void* data = buffer.as();
    buffers_.emplace(data, std::move(buffer));
    return {data, rows, cols, wide};
  }

  // Into choice_.
  void find_largest(Activation x, int64_t row) {
    LONGVIEW_CHECK(x.wide, kInternal, "the largest is that of float32 values");
    choice_.grow(device_, 2 * sizeof(int32_t), "the choice");
    if (largest_.bytes() == 0) {
      largest_.grow(device_, kernels::kLargestWorkspaceBytes, "the choice");
      check(library_.fill(largest_.as(), 0, static_cast<size_t>(largest_.bytes()), device_.stream()), "clearing the choice");
    }
    check(library_.largest({static_cast<const float*>(rows(x, row, 1).data), x.cols, largest_.as(), choice_.as<int32_t>()}, device_.stream()), "choosing");
  }
  std::span<const int32_t> choices() {
    auto* both = static_cast<int32_t*>(row_.room(2 * sizeof(int32_t)));
    check(library_.copy_to_host(both, choice_.as(), 2 * sizeof(int32_t), device_.stream()), "choosing");
    check(library_.synchronize(device_.stream()), "computing");
    return {both, 2};
  }

  Device device_;
  const kernels::Library& library_;
  const bool e4m3_;  // weights of layers
  Uploader uploader_;
  Products products_;
  ExpertMixture experts_{device_, products_};
  DeltaNet delta_net_{device_};
  std::unordered_map<void*, Buffer> buffers_;
  DecodeStep step_{device_};
  PageTables tables_{device_};
  Attention attention_{device_, tables_, step_};
  SparseAttention sparse_{device_, tables_};
  Focus focus_{device_};
  Buffer tokens_, largest_, weights_;
  Buffer choice_;  // the largest logit's token, and one that is drawn
  HostBuffer row_{device_};  // that read_row brings
};

}  // namespace

std::unique_ptr<Backend> make_backend(const kernels::Library& library, const GpuOptions& options) { return std::make_unique<CudaBackend>(library, options); }

}  // namespace cuda

}  // namespace longview
