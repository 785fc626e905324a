// out = x weight^T + bias on the CPU.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "base/thread_pool.h"
#include "cpu/kernels.h"
#include "cpu/scratch.h"

namespace longview::cpu {

class Linear {
 public:
  Linear(const Kernels& kernels, Precision precision, ThreadPool& pool);

  // x [tokens, weight.cols], out [tokens, weight.rows], bias [weight.rows] or null.
  void run(const float* x, int64_t tokens, const TensorView& weight, const float* bias, float* out);

 private:
  // Few tokens: each row of the weight is read once and multiplied with all of them.
  void by_rows(const float* x, int64_t tokens, const TensorView& weight, const float* bias, float* out);
  // Many tokens: panels of 32 rows are dequantised and packed once, then multiplied as a matrix.
  void by_panels(const float* x, int64_t tokens, const TensorView& weight, const float* bias, float* out);

  const Kernels& kernels_;
  const Precision precision_;
  ThreadPool& pool_;
  Scratch input_;                 // x as bf16, or as 8-bit codes
  Scratch input_scales_, input_sums_;
  std::vector<Scratch> rows_;     // by thread: dequantised rows
  std::vector<Scratch> panels_;   // by thread: the packed panel
  std::vector<Scratch> outputs_;  // by thread: a panel's products where the output is ragged
};

}  // namespace longview::cpu
