// Bounded error: what probe rows say of a head's attention, and what follows from it. A head whose attention puts too little
// of its mass where dense attention puts it gets a larger budget with the next chunk, and in the end becomes dense.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sparse/pattern.h"

namespace longview {

class Budget {
 public:
  // Takes the coverage of one more chunk; raises the heads under their target. Both [heads of all layers]; without targets none
  // is raised.
  void update(std::span<const HeadCoverage> chunk, std::span<const float> target_mass);
  // plans [heads of all layers] with the budgets raised so far.
  std::vector<HeadPlan> apply(std::span<const HeadPlan> plans) const;
  // Heads whose budget was raised, and of these the dense ones.
  int64_t raised() const;
  int64_t dense() const;

 private:
  struct Head {
    double covered = 0;  // since it was raised last, older rows faded
    int64_t probes = 0;
    uint8_t raised = 0;
  };
  std::vector<Head> heads_;
};

}  // namespace longview
