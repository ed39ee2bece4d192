// The int8 rows of the tied embedding, and their exact products: logits.
#pragma once

#include <algorithm>
#include <cstdint>

#include "buffers.h"
#include "token_mask.h"

namespace gemma3 {

constexpr int kChunkPanels = 64;  // handed out at a time: 320 KiB of each plane

struct PanelRange {
    int first, last;  // [first, last)
};

// In two planes: byte = 16 * high + low.
struct Embedding {
    Matrix high, low;
    const float* scales = nullptr;
    int vocab_size = 0;

    int num_panels() const { return high.num_panels; }
    int num_chunks() const { return (num_panels() + kChunkPanels - 1) / kChunkPanels; }
    PanelRange chunk(int i) const { return {i * kChunkPanels, std::min((i + 1) * kChunkPanels, num_panels())}; }
    // The ids of a panel, as bits: the last may be filled up with what is no id.
    uint32_t ids_of(int panel) const {
        const int count = vocab_size - panel * kPanel;
        return count >= kPanel ? TokenMask::kWhole : (1u << count) - 1;
    }
};

// The logits of the panels [first, last): out[row][0 .. 16 * (last - first)). Exact integers times scales, so that a logit has
// the same bits whichever rows and panels are computed with it. `bytes` is memory for some panels of both planes.
void exact_logits(const Kernels& kernels, const Embedding& embedding, const Activations& in, int first, int last, float* out,
                  int64_t stride, Buffer<uint8_t>& bytes);

// How large that memory must be.
int64_t joined_bytes(const Embedding& embedding);

}  // namespace gemma3
