// Contexts for tests of sparse attention: pages with means, queries, groups of heads, and exact scores in double.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <numeric>
#include <optional>
#include <thread>

#include "kernels/e4m3.h"
#include "kernels/gpu.h"

namespace sparse_case {

using namespace longview;
using kernels::HeadGroup;
using kernels::kPageTokens;
using kernels::kSparseTileRows;
using kernels::PageFormat;
using kernels::PageRule;

constexpr int32_t kEverything = 1 << 30;

// A group's plan; the heads and tiles are filled in.
inline HeadGroup dense() { return {0, 0, 0, 0, 0, kEverything, PageRule::kNone, 0, 0, 0, 0, 0, 0}; }
inline HeadGroup adaptive(PageRule rule, float threshold, bool means = true) { return {0, 0, 0, 0, 128, 512, rule, threshold, 0, means, 0, 0, 0}; }
inline HeadGroup a_shape(int32_t sink, int32_t window) { return {0, 0, 0, 0, sink, window, PageRule::kNone, 0, 1, 0, 0, 0, 0}; }
inline HeadGroup slash(int32_t columns, int32_t diagonals) { return {0, 0, 0, 0, 0, 0, PageRule::kSlash, 0, 0, 0, columns, diagonals, 0}; }
inline HeadGroup blocks(int32_t count) { return {0, 0, 0, 0, 0, 0, PageRule::kBlocks, 0, 0, 0, 0, 0, count}; }

struct Shape {
  int64_t tokens, first, heads, kv_heads, d;
};

// Calls of(0) .. of(count - 1), on all processors.
template <typename Of>
void in_parallel(size_t count, Of of) {
  std::atomic<size_t> next = 0;
  std::vector<std::jthread> threads(std::max(1u, std::thread::hardware_concurrency()));
  for (std::jthread& thread : threads)
    thread = std::jthread([&] {
      for (size_t i = next++; i < count; i = next++) of(i);
    });
}

// How queries and keys are drawn.
enum class Data {
  kPlain,     // every page has a direction of its own that some queries look for
  kOutliers,  // one channel of the keys is thirty times the others, scores are in the hundreds
};

class Context {
 public:
  // `plans`: one for each KV head, all of whose heads share it, or one for each query head.
  Context(const Shape& shape, std::vector<HeadGroup> plans, Data data = Data::kPlain, int32_t architecture = 0, PageFormat format = PageFormat::kBFloat16)
      : shape_(shape), format_(format), random_(static_cast<uint64_t>(shape.tokens * 7919 + shape.first * 31 + shape.heads * 7 + shape.d)) {
    const auto [tokens, first, heads, kv_heads, d] = shape;
    const int64_t length = first + tokens, pages = (length + kPageTokens - 1) / kPageTokens, block = kernels::page_block_bytes(format, d);
    const int64_t page = kernels::page_bytes(format, kLayers, kv_heads, d, true);
    q_ = gpu::random_bf16(static_cast<size_t>(tokens * heads * d), random_);
    k_ = gpu::random_bf16(static_cast<size_t>(length * kv_heads * d), random_);
    v_ = gpu::random_bf16(k_.size(), random_);
    for (int64_t t = 0; t < length; ++t)
      for (int64_t i = 0; i < kv_heads * d; ++i) {
        uint16_t& x = k_[static_cast<size_t>(t * kv_heads * d + i)];
        const double direction = std::sin(static_cast<double>((t / kPageTokens * 131 + i) * (i % 7 + 1)));
        x = float_to_bf16(static_cast<float>(gpu::at(k_, static_cast<size_t>(t * kv_heads * d + i)) + direction * (data == Data::kOutliers && i % d == 5 ? 30 : 1)));
      }
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t wanted = (t / 50 * 17 + h) % pages;  // a page that this query looks for
        for (int64_t i = 0; i < d; ++i) {
          uint16_t& x = q_[static_cast<size_t>((t * heads + h) * d + i)];
          const int64_t channel = h / (heads / kv_heads) * d + i;
          const double direction = std::sin(static_cast<double>((wanted * 131 + channel) * (channel % 7 + 1)));
          x = float_to_bf16(static_cast<float>(gpu::at(q_, static_cast<size_t>((t * heads + h) * d + i)) + direction * 0.6) * (data == Data::kOutliers ? 4.0f : 1.0f));
        }
      }

    exact_q_.resize(q_.size());
    for (size_t i = 0; i < q_.size(); ++i) exact_q_[i] = gpu::at(q_, i);
    if (format == PageFormat::kE4M3) round_queries(exact_q_, d);

    // Pages in random order; everything that is not this layer's is huge.
    slots_.resize(static_cast<size_t>(pages));
    std::iota(slots_.begin(), slots_.end(), 0);
    std::shuffle(slots_.begin(), slots_.end(), random_);
    std::vector<uint8_t> storage(static_cast<size_t>(pages * page), format == PageFormat::kE4M3 ? 0x7e : 0x71);
    mean_k_.assign(static_cast<size_t>(pages * kv_heads * d), 0);
    mean_v_ = mean_k_;
    for (int64_t p = 0; p < pages; ++p)
      for (int64_t g = 0; g < kv_heads; ++g) {
        const int64_t base = slots_[static_cast<size_t>(p)] * page, to = base + (kLayer * kv_heads + g) * 2 * block;
        const int64_t mean = base + kernels::page_mean_bytes(format, kLayers, kv_heads, d, kLayer, g);
        if (format == PageFormat::kE4M3) keep_codes(p, g, storage.data() + to);
        for (int64_t i = 0; i < d; ++i) {
          double sum_k = 0, sum_v = 0;
          for (int64_t t = 0; t < kPageTokens && p * kPageTokens + t < length; ++t) {
            const auto from = static_cast<size_t>(((p * kPageTokens + t) * kv_heads + g) * d + i);
            if (format == PageFormat::kBFloat16) {
              std::memcpy(storage.data() + to + 2 * kernels::page_offset(t, i), &k_[from], 2);
              std::memcpy(storage.data() + to + block + 2 * kernels::page_offset(t, i), &v_[from], 2);
            }
            sum_k += gpu::at(k_, from);
            sum_v += gpu::at(v_, from);
          }
          if ((p + 1) * kPageTokens > length) continue;  // a ragged page has no means
          const auto at = static_cast<size_t>((p * kv_heads + g) * d + i);
          mean_k_[at] = float_to_bf16(static_cast<float>(sum_k / kPageTokens));
          mean_v_[at] = float_to_bf16(static_cast<float>(sum_v / kPageTokens));
          std::memcpy(storage.data() + mean + 2 * i, &mean_k_[at], 2);
          std::memcpy(storage.data() + mean + 2 * (d + i), &mean_v_[at], 2);
        }
      }
    make_weighed_means(pages);
    device_q_.emplace(q_);
    device_kv_.emplace(storage);
    out_.emplace(q_.size());
    std::vector<void*> pointers;
    for (const int64_t slot : slots_) pointers.push_back(device_kv_->get() + slot * page);
    table_.emplace(pointers);
    plan(std::move(plans), architecture);
  }

  // Other plans for the same queries and keys; the counters begin anew.
  void plan(std::vector<HeadGroup> plans, int32_t architecture = 0) {
    const auto [tokens, first, heads, kv_heads, d] = shape_;
    const bool per_head = static_cast<int64_t>(plans.size()) == heads;
    tiles_ = 0;
    for (size_t i = 0; i < plans.size(); ++i) {
      HeadGroup& plan = plans[i];
      plan.heads = static_cast<int32_t>(per_head ? 1 : heads / kv_heads);
      plan.first_head = static_cast<int32_t>(i) * plan.heads;
      plan.kv_head = static_cast<int32_t>(plan.first_head / (heads / kv_heads));
      plan.first_tile = static_cast<int32_t>(tiles_);
      tiles_ += kernels::sparse_tiles(tokens, plan.heads);
    }
    groups_ = std::move(plans);
    device_groups_.emplace(groups_);
    counters_.emplace(std::vector<kernels::HeadCounters>(static_cast<size_t>(heads)));
    args_ = {device_q_->get(), out_->get(), {table_->get(), kv_heads, d, kLayer, kLayers, format_}, tokens, heads, first, device_groups_->get(), static_cast<int64_t>(groups_.size()), tiles_, counters_->get(), nullptr, gpu::properties().multiprocessors, architecture};
    for (size_t i = 0; i < groups_.size(); ++i) {
      if (groups_[i].rule == PageRule::kSlash && args_.slash_groups++ == 0) args_.slash_group = static_cast<int64_t>(i);
      args_.block_groups += groups_[i].rule == PageRule::kBlocks;
    }
    layout_ = kernels::sparse_layout(args_);
    workspace_.emplace(static_cast<size_t>(layout_.bytes));
    args_.workspace = workspace_->get();
  }

  const Shape& shape() const { return shape_; }
  const kernels::SparseArgs& args() const { return args_; }
  const std::vector<HeadGroup>& groups() const { return groups_; }
  std::vector<uint16_t> out() const { return out_->read(); }
  std::vector<kernels::HeadCounters> counters() const { return counters_->read(); }
  std::vector<uint32_t> bits() const {
    const std::vector<uint8_t> all = workspace();
    std::vector<uint32_t> out(static_cast<size_t>(tiles_ * layout_.words));
    std::memcpy(out.data(), all.data() + layout_.bits, out.size() * 4);
    return out;
  }
  bool bit(const std::vector<uint32_t>& bits, int64_t tile, int64_t page) const { return bits[static_cast<size_t>(tile * layout_.words + page / 32)] >> page % 32 & 1; }
  int64_t pages() const { return layout_.pages; }
  int64_t words() const { return layout_.words; }

  // The tile of a group's row.
  int64_t tile_of(const HeadGroup& g, int64_t row) const { return g.first_tile + kernels::sparse_tiles(shape_.tokens, g.heads) - 1 - row / kSparseTileRows; }
  // Candidates of the tile that begins with this token.
  std::pair<int64_t, int64_t> candidates(const HeadGroup& g, int64_t first_position) const {
    const int64_t begin = (g.sink + kPageTokens - 1) / kPageTokens, end = std::max<int64_t>(0, first_position + 1 - std::max(g.window, 1)) / kPageTokens;
    return {begin, std::max(begin, end)};
  }
  // q . k / sqrt(D) of token t of the chunk and head h with a key, or with a page's mean key.
  double score(int64_t t, int64_t h, int64_t key) const { return dot(t, h, k_, key); }
  double mean_score(int64_t t, int64_t h, int64_t page) const { return dot(t, h, mean_k_, page); }
  // The same with mean i of those from which a page's mass is taken; queries are never rounded for these.
  double weighed_score(int64_t t, int64_t h, int64_t page, int64_t i) const { return dot(t, h, weighed_k_, page * weighed_means() + i, true); }
  int64_t weighed_means() const { return kernels::means_of_page(layout_.pages); }
  double weighed_mean(int64_t g, int64_t page, int64_t i, int64_t dimension) const {
    return gpu::at(weighed_k_, static_cast<size_t>(((page * weighed_means() + i) * shape_.kv_heads + g) * shape_.d + dimension));
  }
  // What the device keeps of them, where there are several for a page.
  double device_weighed_mean(const std::vector<uint8_t>& workspace, int64_t g, int64_t page, int64_t i, int64_t dimension) const {
    const int64_t row = page * weighed_means() + i, block = g * weighed_means() * layout_.mean_blocks + row / kPageTokens;
    uint16_t x = 0;
    std::memcpy(&x, workspace.data() + layout_.fine_means + 2 * (block * kPageTokens * shape_.d + kernels::page_offset(row % kPageTokens, dimension)), 2);
    return bf16_to_float(x);
  }
  std::vector<uint8_t> workspace() const { return workspace_->read(); }
  PageFormat format() const { return format_; }
  double query(int64_t t, int64_t h, int64_t i) const { return gpu::at(q_, static_cast<size_t>((t * shape_.heads + h) * shape_.d + i)); }
  double key(int64_t h, int64_t key, int64_t i) const { return gpu::at(k_, place(h, key) + static_cast<size_t>(i)); }
  double value(int64_t h, int64_t key, int64_t i) const { return gpu::at(v_, place(h, key) + static_cast<size_t>(i)); }
  double mean_value(int64_t h, int64_t page, int64_t i) const { return gpu::at(mean_v_, place(h, page) + static_cast<size_t>(i)); }

 private:
  static constexpr int64_t kLayers = 2, kLayer = 1;

  size_t place(int64_t h, int64_t row) const { return static_cast<size_t>((row * shape_.kv_heads + h / (shape_.heads / shape_.kv_heads)) * shape_.d); }
  double dot(int64_t t, int64_t h, const std::vector<uint16_t>& keys, int64_t row, bool bf16_query = false) const {
    double sum = 0;
    const size_t from = static_cast<size_t>((t * shape_.heads + h) * shape_.d), key = place(h, row);
    for (size_t i = 0; i < static_cast<size_t>(shape_.d); ++i) sum += (bf16_query ? gpu::at(q_, from + i) : exact_q_[from + i]) * gpu::at(keys, key + i);
    return sum / std::sqrt(static_cast<double>(shape_.d));
  }

  void make_weighed_means(int64_t pages) {
    const int64_t means = kernels::means_of_page(pages), tokens = kPageTokens / means, width = shape_.kv_heads * shape_.d;
    weighed_k_.assign(static_cast<size_t>(pages * means * width), 0);
    in_parallel(static_cast<size_t>((shape_.first + shape_.tokens) / kPageTokens * means), [&](size_t mean) {
      for (int64_t i = 0; i < width; ++i) {
        double sum = 0;
        for (int64_t t = 0; t < tokens; ++t) sum += gpu::at(k_, (mean * static_cast<size_t>(tokens) + static_cast<size_t>(t)) * static_cast<size_t>(width) + static_cast<size_t>(i));
        weighed_k_[mean * static_cast<size_t>(width) + static_cast<size_t>(i)] = float_to_bf16(static_cast<float>(sum / static_cast<double>(tokens)));
      }
    });
  }
  // A page's K and V of a head to codes behind a scale, as rope_append makes them; from here on k_ and v_ are what those stand for.
  void keep_codes(int64_t p, int64_t g, uint8_t* to) {
    const auto [tokens, first, heads, kv_heads, d] = shape_;
    const int64_t count = std::min(kPageTokens, first + tokens - p * kPageTokens);
    for (std::vector<uint16_t>* x : {&k_, &v_}) {
      const auto at = [&](int64_t t, int64_t i) -> uint16_t& { return (*x)[static_cast<size_t>(((p * kPageTokens + t) * kv_heads + g) * d + i)]; };
      float largest = 0;
      for (int64_t t = 0; t < count; ++t)
        for (int64_t i = 0; i < d; ++i) largest = std::max(largest, std::fabs(bf16_to_float(at(t, i))));
      const float scale = std::exp2(std::floor(std::log2(largest / 3.5f)));
      for (int64_t t = 0; t < count; ++t)
        for (int64_t i = 0; i < d; ++i) {
          const double rounded = rounded_e4m3(bf16_to_float(at(t, i)) / scale);
          to[x == &k_ ? kernels::e4m3_key_offset(d, t, i) : kernels::e4m3_value_offset(t, i)] = code_e4m3(rounded);
          at(t, i) = float_to_bf16(static_cast<float>(rounded * scale));
        }
      std::memcpy(to + kPageTokens * d, &scale, 4);
      to += kernels::page_block_bytes(PageFormat::kE4M3, d);
    }
  }

  const Shape shape_;
  const PageFormat format_;
  std::mt19937_64 random_;
  std::vector<uint16_t> q_, k_, v_, mean_k_, mean_v_, weighed_k_;
  std::vector<int64_t> slots_;
  std::vector<HeadGroup> groups_;
  int64_t tiles_ = 0;
  std::vector<double> exact_q_;  // as they are multiplied
  std::optional<gpu::Memory<uint16_t>> device_q_, out_;
  std::optional<gpu::Memory<uint8_t>> device_kv_;
  std::optional<gpu::Memory<void*>> table_;
  std::optional<gpu::Memory<HeadGroup>> device_groups_;
  std::optional<gpu::Memory<kernels::HeadCounters>> counters_;
  std::optional<gpu::Memory<uint8_t>> workspace_;
  kernels::SparseArgs args_{};
  kernels::SparseLayout layout_{};
};

}  // namespace sparse_case
