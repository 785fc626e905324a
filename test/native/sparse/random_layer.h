// One layer on the CPU with random keys, values and queries, and attention over it in double: over whatever keys and means a pattern
// is said to visit.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <random>

#include "backend/backend.h"
#include "base/half.h"
#include "cache/page_list.h"
#include "cpu/hadamard.h"
#include "cpu/kv_pages.h"
#include "cpu/q8.h"

namespace random_layer {

using namespace longview;

constexpr int64_t kBlock = 32;  // of means

// One layer of random keys and values in pages, and the queries of its last chunk.
struct Case {
  int64_t kv_heads, group, d, before, tokens;
  KvFormat format = KvFormat::kFloat32;
  Precision precision = Precision::kFloat32;
  std::string isa = "";
  uint32_t seed = 1;
  int64_t span = 0;                // AttentionLayer::span
  std::vector<float> sinks = {};   // of each head; empty: none

  int64_t heads() const { return kv_heads * group; }
  int64_t end() const { return before + tokens; }
};

class Layer {
 public:
  explicit Layer(const Case& c) : c_(c), backend_(make_cpu_backend({2, c.precision, c.isa})), shape_{1, c.kv_heads, c.d, c.format, kBlock}, pool_(*backend_, shape_, (c.end() + 127) / 128 + 2), index_(pool_, 1), list_(*backend_, pool_, index_) {
    std::mt19937 random(c.seed);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& values, int64_t count, float scale) {
      values.resize(static_cast<size_t>(count));
      for (float& x : values) x = normal(random) * scale;
    };
    fill(q_, c.tokens * c.heads() * c.d, 1.5f);
    fill(k_, c.end() * c.kv_heads * c.d, 1.0f);
    fill(v_, c.end() * c.kv_heads * c.d, 1.0f);
    // Outliers: a sink, a few hot keys, one dimension that dwarfs the others.
    for (int64_t h = 0; h < c.kv_heads; ++h) {
      for (int64_t i = 0; i < c.d; ++i) k(0, h)[i] *= 3;
      for (int64_t hot = 97; hot < c.end(); hot += 611)
        for (int64_t i = 0; i < c.d; ++i) k(hot, h)[i] = q_[static_cast<size_t>((c.tokens - 1) * c.heads() * c.d + h * c.group * c.d + i)] * 1.2f;
    }
    for (int64_t t = 0; t < c.end(); ++t) k(t, 0)[3] += 8;

    RopeConfig still;  // every position is turned by nothing
    still.inverse_frequencies.assign(static_cast<size_t>(c.d / 2), 0.0);
    still.dims = c.d;
    const auto rope = backend_->upload_rope(still);
    // In two steps that do not end where blocks do: the second one finishes a block that the first began.
    const int64_t first = std::min<int64_t>(c.before, std::max<int64_t>(c.before - 45, 0));
    write(0, first, *rope);
    write(first, c.before - first, *rope);
    write(c.before, c.tokens, *rope);
    if (c.format == KvFormat::kQ4) read_kept();
  }

  // out [tokens, heads, d]; plans [heads], empty for dense.
  std::vector<float> attend(const std::vector<HeadPlan>& plans) {
    Activation q = backend_->allocate(c_.tokens, c_.heads() * c_.d), out = backend_->allocate(c_.tokens, c_.heads() * c_.d);
    bring_queries(q);
    std::fill_n(static_cast<float*>(out.data), c_.tokens * c_.heads() * c_.d, std::numeric_limits<float>::quiet_NaN());
    if (plans.empty()) backend_->attention(q, shape_, c_.heads(), attending(), list_.view(), c_.before, out);
    else backend_->attention_sparse(q, shape_, c_.heads(), attending(), list_.view(), c_.before, plans, out);
    const auto* data = static_cast<const float*>(out.data);
    std::vector<float> result(data, data + c_.tokens * c_.heads() * c_.d);
    backend_->release(q);
    backend_->release(out);
    return result;
  }

  // Squares of the weights of keys 0 .. keys - 1.
  std::vector<float> focus(int64_t keys) {
    Activation q = backend_->allocate(c_.tokens, c_.heads() * c_.d);
    bring_queries(q);
    CHECK(backend_->add_focus(q, shape_, c_.heads(), attending(), list_.view(), c_.before, keys));
    std::vector<float> result(static_cast<size_t>(keys));
    backend_->take_focus(result);
    backend_->release(q);
    return result;
  }

  // K and V of a token that was written before, which are no numbers from now on.
  void spoil(int64_t token) {
    const KvPages pages = list_.view();
    const std::vector<float> none(static_cast<size_t>(c_.d), std::numeric_limits<float>::quiet_NaN());
    for (int64_t h = 0; h < c_.kv_heads; ++h)
      static_cast<const cpu::CpuKvStorage&>(*pages.storage).write(pages.page_slots[static_cast<size_t>(token / kPageTokens)], 0, h, token % kPageTokens, none.data(), std::vector<float>(none.size(), 0.0f).data());
  }

  std::vector<HeadCoverage> coverage() {
    std::vector<HeadCoverage> heads(static_cast<size_t>(c_.heads()));
    backend_->take_coverage(heads);
    return heads;
  }

  double score(int64_t token, int64_t head, int64_t key) const {
    double sum = 0;
    const float* query = q_.data() + (token * c_.heads() + head) * c_.d;
    for (int64_t i = 0; i < c_.d; ++i) sum += static_cast<double>(query[i]) * key_value(k_, kept_keys_, key, head / c_.group, i);
    return sum / std::sqrt(static_cast<double>(c_.d));
  }
  double value(int64_t key, int64_t head, int64_t i) const { return key_value(v_, kept_values_, key, head / c_.group, i); }
  // What pages hold: rounded where they hold bf16, a code times a scale where they hold q8; of q4 what they say, turned back.
  double key_value(const std::vector<float>& from, const std::vector<float>& kept, int64_t key, int64_t kv_head, int64_t i) const {
    const auto at = static_cast<size_t>((key * c_.kv_heads + kv_head) * c_.d + i);
    if (c_.format == KvFormat::kQ4) return static_cast<double>(kept[at]);
    const float& x = from[at];
    if (c_.format == KvFormat::kQ8) {
      int8_t codes[cpu::kQ8Block];
      const int64_t first = i / cpu::kQ8Block * cpu::kQ8Block;
      const uint16_t scale = cpu::quantize_q8(&x - (i - first), std::min(cpu::kQ8Block, c_.d - first), codes);
      return static_cast<double>(codes[i - first]) * static_cast<double>(bf16_to_float(scale));
    }
    return static_cast<double>(c_.format == KvFormat::kBFloat16 ? bf16_to_float(float_to_bf16(x)) : x);
  }
  const Case& c() const { return c_; }
  const std::vector<float>& keys() const { return k_; }
  const std::vector<float>& values() const { return v_; }
  const std::vector<float>& queries() const { return q_; }

 private:
  float* k(int64_t token, int64_t head) { return k_.data() + (token * c_.kv_heads + head) * c_.d; }

  AttentionLayer attending() {
    if (!c_.sinks.empty() && !sinks_) sinks_ = backend_->upload({DType::kF32, 1, c_.heads(), reinterpret_cast<const std::byte*>(c_.sinks.data()), c_.heads() * 4});
    return {0, c_.span, sinks_.get()};
  }

  // As they would come from rope_and_append_kv.
  void bring_queries(const Activation& q) const {
    auto* to = static_cast<float*>(q.data);
    std::copy(q_.begin(), q_.end(), to);
    for (int64_t row = 0; row < c_.tokens * c_.heads() && c_.format == KvFormat::kQ4; ++row) cpu::hadamard(to + row * c_.d, c_.d);
  }

  void read_kept() {
    const KvPages pages = list_.view();
    const auto& storage = static_cast<const cpu::CpuKvStorage&>(*pages.storage);
    kept_keys_.resize(k_.size()), kept_values_.resize(v_.size());
    for (int64_t t = 0; t < c_.end(); ++t)
      for (int64_t h = 0; h < c_.kv_heads; ++h) {
        float* key = kept_keys_.data() + (t * c_.kv_heads + h) * c_.d;
        storage.read(pages.page_slots[static_cast<size_t>(t / kPageTokens)], 0, h, t % kPageTokens, key, kept_values_.data() + (t * c_.kv_heads + h) * c_.d);
        cpu::hadamard(key, c_.d);
      }
  }

  void write(int64_t first, int64_t count, DeviceRope& rope) {
    if (count <= 0) return;
    list_.reserve(count);
    Activation q = backend_->allocate(count, c_.heads() * c_.d), keys = backend_->allocate(count, c_.kv_heads * c_.d), values = backend_->allocate(count, c_.kv_heads * c_.d);
    std::fill_n(static_cast<float*>(q.data), count * c_.heads() * c_.d, 0.0f);
    const int64_t width = c_.kv_heads * c_.d;
    std::copy_n(k_.begin() + first * width, count * width, static_cast<float*>(keys.data));
    std::copy_n(v_.begin() + first * width, count * width, static_cast<float*>(values.data));
    backend_->rope_and_append_kv(q, keys, values, rope, shape_, 0, list_.view(), first);
    std::vector<int32_t> ids(static_cast<size_t>(count));
    std::iota(ids.begin(), ids.end(), static_cast<int32_t>(first));
    list_.advance(ids);
    for (Activation* buffer : {&q, &keys, &values}) backend_->release(*buffer);
  }

  Case c_;
  std::unique_ptr<Backend> backend_;
  KvShape shape_;
  PagePool pool_;
  PrefixIndex index_;
  PageList list_;
  WeightHandle sinks_;
  std::vector<float> q_, k_, v_, kept_keys_, kept_values_;
};

// A block that stands in by its mean: `length` keys of this score and value.
struct Mean {
  double score, length;
  std::vector<double> value;
  int64_t block = 0;
};
struct Visited {
  std::vector<int64_t> keys;
  std::vector<Mean> means;
};
using Visits = std::function<Visited(int64_t token, int64_t head)>;

// Largest difference from softmax attention over what `visits` names, in every `step`th row and the last.
inline double worst_error(const Layer& layer, const std::vector<float>& out, const Visits& visits, int64_t step = 1) {
  const Case& c = layer.c();
  double worst = 0;
  for (int64_t t = 0; t < c.tokens; ++t) {
    if (t % step != 0 && t != c.tokens - 1) continue;
    for (int64_t h = 0; h < c.heads(); ++h) {
      const Visited visited = visits(t, h);
      double maximum = -1e300, sum = 0;
      for (const int64_t key : visited.keys) maximum = std::max(maximum, layer.score(t, h, key));
      for (const Mean& mean : visited.means) maximum = std::max(maximum, mean.score);
      std::vector<double> expected(static_cast<size_t>(c.d), 0.0);
      for (const int64_t key : visited.keys) {
        const double p = std::exp(layer.score(t, h, key) - maximum);
        sum += p;
        for (int64_t i = 0; i < c.d; ++i) expected[static_cast<size_t>(i)] += p * layer.value(key, h, i);
      }
      for (const Mean& mean : visited.means) {
        const double p = mean.length * std::exp(mean.score - maximum);
        sum += p;
        for (int64_t i = 0; i < c.d; ++i) expected[static_cast<size_t>(i)] += p * mean.value[static_cast<size_t>(i)];
      }
      const float* row = out.data() + (t * c.heads() + h) * c.d;
      for (int64_t i = 0; i < c.d; ++i) worst = std::max(worst, std::isfinite(row[i]) ? std::fabs(expected[static_cast<size_t>(i)] / sum - static_cast<double>(row[i])) : 1e300);
    }
  }
  return worst;
}

// Of each head one: of no weight, and heavier than most keys.
inline std::vector<float> some_sinks(const Case& c) {
  std::vector<float> sinks;
  for (int64_t h = 0; h < c.heads(); ++h) sinks.push_back(static_cast<float>(h % 4) * 9 - 8);
  return sinks;
}

// A sink, which is a key without a value.
inline Mean sink_of(const Case& c, int64_t head) { return {static_cast<double>(c.sinks[static_cast<size_t>(head)]), 1, std::vector<double>(static_cast<size_t>(c.d), 0.0)}; }

inline std::vector<int64_t> up_to(int64_t position) {
  std::vector<int64_t> keys(static_cast<size_t>(position + 1));
  std::iota(keys.begin(), keys.end(), 0);
  return keys;
}

}  // namespace random_layer
