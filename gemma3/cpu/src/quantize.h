// Float rows to packed panels. Layouts: kernels/panels.h.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernels.h"

namespace gemma3 {

struct PackedRows {
    std::vector<uint8_t> panels;       // int8 or int4; of the embedding, the high nibbles
    std::vector<uint8_t> low;          // the embedding's low nibbles
    std::vector<uint8_t> multipliers;  // int4
    std::vector<float> scales;
};

// The block of the rotation: the largest power of two up to 128 that divides the number of inputs.
int rotation_of(int num_inputs);

// `rows` is (num_rows, num_inputs), contiguous.
PackedRows quantize_int8(const Kernels&, const float* rows, int num_rows, int num_inputs);
PackedRows quantize_int4(const Kernels&, const float* rows, int num_rows, int num_inputs);
PackedRows quantize_embedding(const Kernels&, const float* rows, int num_rows, int num_inputs);

}  // namespace gemma3
