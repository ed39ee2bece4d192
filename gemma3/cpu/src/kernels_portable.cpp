// Plain C++: every processor, and the twin that the other kernels are tested against.
#include <cmath>
#include <cstring>
#include <utility>

#include "kernels.h"

namespace gemma3 {
namespace {

#include "lanes.inl"
#include "rows.inl"
#include "attend.inl"
#include "unpack.inl"

void dot(const uint8_t* bytes, const int8_t* values, int num_inputs, int32_t* sums) {
    for (int o = 0; o < kPanel; ++o) sums[o] = 0;
    for (int i = 0; i < num_inputs; i += 4)
        for (int o = 0; o < kPanel; ++o)
            for (int k = 0; k < 4; ++k) sums[o] += bytes[kPanel * i + 4 * o + k] * values[i + k];
}

#include "by_panel.inl"

}  // namespace

const Kernels& portable_kernels() {
    static const Kernels kernels{"portable", matmul,   matmul_nibbles, bound_logits, rotate, quantize,
                                 norm,       add_norm, gelu_gate,      norm_rope, attend, merge};
    return kernels;
}

}  // namespace gemma3
