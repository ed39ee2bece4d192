// The int8 rows of the tied embedding, and their exact products: logits.
#pragma once

#include <cstdint>

#include "buffers.h"

namespace gemma3 {

// In two planes: byte = 16 * high + low.
struct Embedding {
    Matrix high, low;
    const float* scales = nullptr;
    int vocab_size = 0;

    int num_panels() const { return high.num_panels; }
};

// The logits of the panels [first, last): out[row][0 .. 16 * (last - first)). Exact integers times scales, so that a logit has
// the same bits whichever rows and panels are computed with it. `bytes` is memory for some panels of both planes.
void exact_logits(const Kernels& kernels, const Embedding& embedding, const Activations& in, int first, int last, float* out,
                  int64_t stride, Buffer<uint8_t>& bytes);

// How large that memory must be.
int64_t joined_bytes(const Embedding& embedding);

}  // namespace gemma3
