// The planes are joined to int8 panels before they are multiplied: one product instead of two, and the kernels' own.
#include "embedding.h"

#include <algorithm>

namespace gemma3 {
namespace {

constexpr int kJoinedPanels = 16;  // at a time: 160 KiB, which stay in the second cache

int64_t panel_bytes(const Embedding& embedding) { return int64_t{kPanel} * embedding.high.num_inputs; }

}  // namespace

int64_t joined_bytes(const Embedding& embedding) {
    return kJoinedPanels * panel_bytes(embedding) + product_scratch(kJoinedPanels, embedding.high.num_inputs);
}

void exact_logits(const Kernels& kernels, const Embedding& embedding, const Activations& in, int first, int last, float* out,
                  int64_t stride, Buffer<uint8_t>& bytes) {
    Matrix joined = embedding.high;
    joined.format = Format::kInt8;
    joined.panels = bytes.data();
    for (int panel = first; panel < last; panel += kJoinedPanels, out += kJoinedPanels * kPanel) {
        joined.num_panels = std::min(kJoinedPanels, last - panel);
        joined.scales = embedding.scales + int64_t{panel} * kPanel;
        const int64_t offset = panel * embedding.high.panel_bytes();
        const int64_t num_lines = joined.num_panels * embedding.high.panel_bytes() / kLine;
        const bool is_last = panel + kJoinedPanels >= last;
        const int64_t next = offset + kJoinedPanels * embedding.high.panel_bytes();
        joined.next[0] = is_last ? nullptr : embedding.high.panels + next;
        joined.next[1] = is_last ? nullptr : embedding.low.panels + next;
        kernels.join_planes(embedding.high.panels + offset, embedding.low.panels + offset, num_lines, bytes.data());
        kernels.matmul(joined, in, 0, joined.num_panels, out, stride, bytes.data() + kJoinedPanels * panel_bytes(embedding));
    }
}

}  // namespace gemma3
