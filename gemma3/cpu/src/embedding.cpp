// The planes are joined to int8 panels before they are multiplied: one product instead of two, and the kernels' own.
#include "embedding.h"

#include <algorithm>

namespace gemma3 {
namespace {

<<<<<<< HEAD
Matrix joined_panels(const Kernels& kernels, const Embedding& embedding, int first, int last, Buffer<uint8_t>& bytes) {
    const int64_t panel_bytes = embedding.high.panel_bytes(), offset = first * panel_bytes;
    kernels.join_planes(embedding.high.panels + offset, embedding.low.panels + offset, (last - first) * panel_bytes / kLine, bytes.data());
    Matrix joined = embedding.high;
    joined.format = Format::kInt8;
    joined.num_panels = last - first;
    joined.panels = bytes.data();
    joined.scales = embedding.scales + int64_t{first} * kPanel;
    return joined;
}

void multiply_joined(const Kernels& kernels, const Matrix& joined, const Activations& in, float* out, int64_t stride,
                     Buffer<uint8_t>& bytes) {
    uint8_t* scratch = bytes.data() + int64_t{kJoinedPanels} * kPanel * joined.num_inputs;
    kernels.matmul(joined, in, 0, joined.num_panels, out, stride, scratch);
=======
constexpr int kJoinedPanels = 16;  // at a time: 160 KiB, which stay in the second cache

int64_t panel_bytes(const Embedding& embedding) { return int64_t{kPanel} * embedding.high.num_inputs; }

}  // namespace

int64_t joined_bytes(const Embedding& embedding) {
    return kJoinedPanels * panel_bytes(embedding) + product_scratch(kJoinedPanels, embedding.high.num_inputs);
>>>>>>> n-rows
}

void exact_logits(const Kernels& kernels, const Embedding& embedding, const Activations& in, int first, int last, float* out,
                  int64_t stride, Buffer<uint8_t>& bytes) {
    Matrix joined = embedding.high;
    joined.format = Format::kInt8;
    joined.panels = bytes.data();
    for (int panel = first; panel < last; panel += kJoinedPanels, out += kJoinedPanels * kPanel) {
<<<<<<< HEAD
        const Matrix joined = joined_panels(kernels, embedding, panel, std::min(panel + kJoinedPanels, last), bytes);
        multiply_joined(kernels, joined, in, out, stride, bytes);
=======
        joined.num_panels = std::min(kJoinedPanels, last - panel);
        joined.scales = embedding.scales + int64_t{panel} * kPanel;
        const int64_t offset = panel * embedding.high.panel_bytes();
        const int64_t num_lines = joined.num_panels * embedding.high.panel_bytes() / kLine;
        kernels.join_planes(embedding.high.panels + offset, embedding.low.panels + offset, num_lines, bytes.data());
        kernels.matmul(joined, in, 0, joined.num_panels, out, stride, bytes.data() + kJoinedPanels * panel_bytes(embedding));
>>>>>>> n-rows
    }
}

}  // namespace gemma3
