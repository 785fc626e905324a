// What the gate of an FFN's two halves opens by.
#pragma once

namespace longview {

// gate * sigmoid(gate * (linear + cubic * gate^2)), which the other half is multiplied with.
struct GateCurve {
  float linear = 1, cubic = 0;  // SiLU
};

// GELU as gate / 2 * (1 + tanh(sqrt(2 / pi) * (gate + 0.044715 gate^3))), where (1 + tanh(y)) / 2 is sigmoid(2 y).
constexpr GateCurve kTanhGelu{1.5957691216f, 0.0713548163f};

}  // namespace longview
