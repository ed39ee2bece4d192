// The int8 rows of the tied embedding, as the head multiplies them.
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

// Memory of one thread for the products of some rows with some panels.
struct PlaneScratch {
    Buffer<int32_t> high, low;
    Buffer<uint8_t> unpacked;

    void reserve(int64_t num_rows, int64_t num_panels, int num_inputs) {
        for (Buffer<int32_t>* sums : {&high, &low}) sums->reserve(num_rows * num_panels * kPanel);
        unpacked.reserve(num_panels * kPanel * num_inputs);
    }
};

// The logits of the panels [first, last): out[row][0 .. 16 * (last - first)). Exact integers times scales, so that a logit has
// the same bits whichever rows and panels are computed with it.
inline void exact_logits(const Kernels& kernels, const Embedding& embedding, const Activations& in, int first, int last, float* out,
                         int64_t stride, PlaneScratch& scratch) {
    const int width = (last - first) * kPanel;
    kernels.matmul_nibbles(embedding.high, in, first, last, scratch.high.data(), width, scratch.unpacked.data());
    kernels.matmul_nibbles(embedding.low, in, first, last, scratch.low.data(), width, scratch.unpacked.data());
    const float* scales = embedding.scales + first * kPanel;
    for (int row = 0; row < in.num_rows; ++row) {
        const int32_t* high = scratch.high.data() + int64_t{row} * width;
        const int32_t* low = scratch.low.data() + int64_t{row} * width;
        for (int i = 0; i < width; ++i)
            out[row * stride + i] =
                static_cast<float>(16 * high[i] + low[i] - kByteOffset * in.sums[row]) * (scales[i] * in.scales[row]);
    }
}

}  // namespace gemma3
