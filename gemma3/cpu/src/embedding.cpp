#include "embedding.h"

#include <algorithm>

namespace gemma3 {

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
}

void exact_logits(const Kernels& kernels, const Embedding& embedding, const Activations& in, int first, int last, float* out,
                  int64_t stride, Buffer<uint8_t>& bytes) {
    for (int panel = first; panel < last; panel += kJoinedPanels, out += kJoinedPanels * kPanel) {
        const Matrix joined = joined_panels(kernels, embedding, panel, std::min(panel + kJoinedPanels, last), bytes);
        multiply_joined(kernels, joined, in, out, stride, bytes);
    }
}

}  // namespace gemma3
