// The KV state in 8 and 4 bits, of every format, on a GPU: what it costs in accuracy beside the same model with its state in bf16, on the same GPU. How exact
// the kernels are is in
// test/kernels/q8_pages_test, q4_pages_test and e4m3_pages_test.
#include <algorithm>
#include <numeric>
#include <random>

#include "base/error.h"
#include "base/half.h"
#include "check.h"
#include "cuda/beside.h"
#include "engine/engine.h"
#include "model/files.h"

using namespace longview;
using namespace longview::beside;

namespace {

bool has_e4m3(const Backend& backend) { return backend.why_not_e4m3_kv().empty(); }

EngineOptions options(const std::string& path, KvFormat format, int64_t chunk = 0) {
  if (const std::string why = why_not_cuda(open_model(path).config); !why.empty()) SKIP("no CUDA device: " + why);
  if (format == KvFormat::kE4M3 && !has_e4m3(*make_cuda_backend())) SKIP("this GPU has no 8-bit floats");
  EngineOptions out;
  out.device = DeviceChoice::kCuda;
  out.kv_format = format;
  out.chunk_tokens = chunk;
  return out;
}

// `off`: of the logits, at most, in prefill by the median, and twice that in turns and decode.
void check_tiny_models(KvFormat format, double off) {
  for (const char* name : {"qwen3-tied", "llama.Q8_0.gguf", "glm4", "phi3", "gpt_oss.MXFP4.gguf", "gemma3"}) {
    const std::string path = files::fixture(name);
    Engine wide(path, options(path, KvFormat::kBFloat16)), narrow(path, options(path, format));
    const std::vector<int32_t> tokens = some_tokens(wide, 400);
    const auto a = wide.create_context(), b = narrow.create_context();
    const std::vector<float> before = wide.all_logits(*a, tokens), after = narrow.all_logits(*b, tokens);
    const std::vector<double> apart = differences(after, before, tokens.size());
    const double prefill = apart[apart.size() / 2];
    b->truncate(250);
    a->truncate(250);
    const auto turn = std::span(tokens).subspan(250, 9);  // reads the codes as they are
    narrow.prefill(*b, turn, CancelToken()), wide.prefill(*a, turn, CancelToken());
    const double short_turn = difference(b->logits(), a->logits());
    for (const int32_t token : std::span(tokens).subspan(259)) narrow.decode(*b, token, CancelToken()), wide.decode(*a, token, CancelToken());
    const double decode = difference(b->logits(), a->logits());
    std::printf("  %s: prefill %.4f of the logits (median, most %.4f), a turn %.4f, decode %.4f\n", name, prefill, apart.back(), short_turn, decode);
    CHECK(prefill > 0 && prefill <= off);
    CHECK(short_turn <= 2 * off);
    CHECK(decode <= 2 * off);
    CHECK(narrow.cache_layout() != wide.cache_layout());
    CHECK(narrow.pool().page_bytes() < wide.pool().page_bytes() * 3 / 5);
  }
}

// Chunks end inside pages, whose scale is of what was there first.
void check_chunks(KvFormat format, double most = 0.1) {
  const std::string path = files::fixture("qwen3-tied");
  Engine whole(path, options(path, format)), parts(path, options(path, format, 37));
  const std::vector<int32_t> tokens = some_tokens(whole, 500);
  const auto a = whole.create_context(), b = parts.create_context();
  whole.prefill(*a, tokens, CancelToken());
  parts.prefill(*b, tokens, CancelToken());
  const double apart = difference(b->logits(), a->logits());
  std::printf("  in chunks of 37: off by %.4f\n", apart);
  CHECK(apart <= most);
  const auto fork = b->fork();
  parts.decode(*fork, 5, CancelToken());
  const std::vector<float> once(fork->logits().begin(), fork->logits().end());
  parts.decode(*b, 6, CancelToken());
  CHECK(difference(once, b->logits()) > 0);
  b->truncate(static_cast<int64_t>(tokens.size()));
  parts.decode(*b, 5, CancelToken());
  CHECK(std::equal(once.begin(), once.end(), b->logits().begin()));
}

void check_built_in(KvFormat format, int same, double worse) {
  const std::string path = built_in_model();
  Engine wide(path, options(path, KvFormat::kBFloat16)), narrow(path, options(path, format));
  const Agreement found = along_answers(wide, narrow);
  std::printf("  %s: %d of %d first choices as in bf16, NLL %.4f (bf16 %.4f), logits off by %.4f\n", narrow.device().name.c_str(), found.same, found.steps, found.after, found.before, found.off);
  CHECK(found.same >= found.steps * same / 100);
  CHECK(found.after <= found.before + worse);
}

constexpr int64_t kSparseHeads = 8;

std::vector<HeadPlan> adaptive_heads() {
  HeadPlan plan = default_plan(Pattern::kAdaptive);
  plan.rule = AdaptiveRule::kMass;
  plan.threshold = 0.5f;
  return std::vector<HeadPlan>(kSparseHeads, plan);
}
// Of both of MInference's kinds, with budgets that leave something out.
std::vector<HeadPlan> minference_heads() {
  HeadPlan slash = default_plan(Pattern::kVerticalSlash), blocks = default_plan(Pattern::kBlockSparse);
  slash.columns = 20;
  slash.diagonals = 300;
  blocks.blocks = 12;
  std::vector<HeadPlan> plans(kSparseHeads, slash);
  std::fill(plans.begin() + kSparseHeads / 2, plans.end(), blocks);
  return plans;
}

void check_sparse(KvFormat narrow, const std::vector<HeadPlan>& plans, double off, int64_t head_dim = 128) {
  ModelConfig config;
  config.hidden = config.ffn = 256;
  config.heads = kSparseHeads;
  config.kv_heads = 2;
  config.head_dim = head_dim;
  if (const std::string why = why_not_cuda(config); !why.empty()) SKIP("no CUDA device: " + why);
  const int64_t tokens = 6000, heads = config.heads, d = config.head_dim, pages = pages_of(tokens);
  const std::unique_ptr<Backend> backend = make_cuda_backend();
  if (narrow == KvFormat::kE4M3 && !has_e4m3(*backend)) SKIP("this GPU has no 8-bit floats");
  // Activations of random tokens: rows of an embedding, read as queries, keys and values.
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  const auto matrix = [&](int64_t rows, int64_t cols, float spread, std::vector<uint16_t>& data) {
    data.resize(static_cast<size_t>(rows * cols));
    for (uint16_t& x : data) x = float_to_bf16(normal(random) * spread);
    return backend->upload({DType::kBF16, rows, cols, reinterpret_cast<const std::byte*>(data.data()), rows * cols * 2});
  };
  std::vector<uint16_t> kept[4];
  std::vector<float> ones(256, 1);
  const WeightHandle embedding = matrix(500, 256, 1, kept[0]), wq = matrix(heads * d, 256, 0.1f, kept[1]), wk = matrix(2 * d, 256, 0.1f, kept[2]), wv = matrix(2 * d, 256, 0.1f, kept[3]);
  const WeightHandle norm = backend->upload({DType::kF32, 1, 256, reinterpret_cast<const std::byte*>(ones.data()), 256 * 4});
  std::vector<int32_t> ids(static_cast<size_t>(tokens)), slots(static_cast<size_t>(pages));
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % 500);
  std::iota(slots.rbegin(), slots.rend(), 0);
  const std::vector<double> frequencies(static_cast<size_t>(d / 2), 0.01);
  RopeConfig rope;
  rope.dims = d;
  rope.inverse_frequencies = frequencies;
  const std::unique_ptr<DeviceRope> device_rope = backend->upload_rope(rope);
  const Activation hidden = backend->allocate_float(tokens, 256), normed = backend->allocate(tokens, 256), q = backend->allocate(tokens, heads * d), k = backend->allocate(tokens, 2 * d), v = backend->allocate(tokens, 2 * d), out = backend->allocate(tokens, heads * d);
  backend->embed(*embedding, ids, 1, hidden);
  backend->rms_norm(hidden, *norm, 1e-5f, normed);
  std::vector<std::vector<float>> rows;
  std::vector<HeadCoverage> coverage[2];
  for (const KvFormat format : {KvFormat::kBFloat16, narrow}) {
    KvShape shape{2, 2, d, format};
    shape.mean_tokens = backend->sparse_block_tokens(shape);
    const std::unique_ptr<KvStorage> storage = backend->allocate_kv(shape, pages + 1);
    CHECK(storage->page_bytes() == backend->kv_page_bytes(shape));
    backend->linear(normed, *wq, nullptr, q);
    backend->linear(normed, *wk, nullptr, k);
    backend->linear(normed, *wv, nullptr, v);
    KvPages view{storage.get(), slots};
    backend->rope_and_append_kv(q, k, v, *device_rope, shape, 1, view, 0);
    // A page takes the way over the host to another slot.
    std::vector<std::byte> bytes(static_cast<size_t>(storage->page_bytes()));
    std::vector<int32_t> moved = slots;
    backend->read_page(*storage, moved[3], bytes);
    backend->write_page(*storage, static_cast<int32_t>(pages), bytes);
    moved[3] = static_cast<int32_t>(pages);
    view.page_slots = moved;
    backend->attention_sparse(q, shape, heads, {1}, view, 0, plans, out);
    std::vector<float> all;
    for (int64_t t = 0; t < tokens; t += 97) {
      std::vector<float> row(static_cast<size_t>(heads * d));
      backend->read_row(out, t, row);
      all.insert(all.end(), row.begin(), row.end());
    }
    rows.push_back(all);
    auto& counted = coverage[format == narrow];
    counted.resize(static_cast<size_t>(2 * heads));
    backend->take_coverage(counted);
  }
  double visited[2] = {}, causal[2] = {};
  for (int i = 0; i < 2; ++i)
    for (const HeadCoverage& head : coverage[i]) visited[i] += head.visited, causal[i] += head.causal;
  const double error = difference(rows[1], rows[0]);
  std::printf("  density %.3f (bf16 %.3f), results off by %.4f\n", visited[1] / causal[1], visited[0] / causal[0], error);
  CHECK(causal[0] == causal[1] && visited[0] < causal[0]);
  CHECK(std::fabs(visited[1] - visited[0]) <= 0.02 * causal[0]);
  CHECK(error > 0 && error <= off);
}

}  // namespace

TEST("tiny models: logits near those of the state in bf16, in prefill, short turns and decode") { check_tiny_models(KvFormat::kQ8, 0.1); }
TEST("the same in 8-bit floats") { check_tiny_models(KvFormat::kE4M3, 0.3); }
TEST("the same in 4 bits") { check_tiny_models(KvFormat::kQ4, 0.5); }

TEST("chunks, forks and truncation leave the logits in 8 bits as they are") { check_chunks(KvFormat::kQ8); }
TEST("and in 8-bit floats") { check_chunks(KvFormat::kE4M3); }
TEST("and in 4 bits, whose pages begin with other keys then") { check_chunks(KvFormat::kQ4, 0.3); }

TEST("the built-in model: first choices and likelihoods along the reference's answers") { check_built_in(KvFormat::kQ8, 97, 0.02); }
TEST("and with a state in 8-bit floats") { check_built_in(KvFormat::kE4M3, 93, 0.05); }
TEST("and with a state in 4 bits") { check_built_in(KvFormat::kQ4, 90, 0.08); }

TEST("sparse attention over a state in 8 bits follows that in bf16, and pages go to the host and back") { check_sparse(KvFormat::kQ8, adaptive_heads(), 0.08); }
TEST("and over one in 8-bit floats") { check_sparse(KvFormat::kE4M3, adaptive_heads(), 0.2); }
TEST("and over one in 4 bits") { check_sparse(KvFormat::kQ4, adaptive_heads(), 0.4); }
TEST("MInference's heads over a state in 8 bits follow those in bf16") { check_sparse(KvFormat::kQ8, minference_heads(), 0.15); }
TEST("and over one in 8-bit floats, whose pages are widened for them") { check_sparse(KvFormat::kE4M3, minference_heads(), 0.3); }
TEST("and over one in 4 bits, whose pages are widened for them") { check_sparse(KvFormat::kQ4, minference_heads(), 0.4); }
TEST("heads of 256 over a state in 8 bits, whose pages are widened for them") { check_sparse(KvFormat::kQ8, adaptive_heads(), 0.08, 256); }
TEST("and over one in 8-bit floats, MInference's too") {
  check_sparse(KvFormat::kE4M3, adaptive_heads(), 0.2, 256);
  check_sparse(KvFormat::kE4M3, minference_heads(), 0.3, 256);
}
TEST("and over one in 4 bits") { check_sparse(KvFormat::kQ4, adaptive_heads(), 0.4, 256); }

TEST_MAIN()
