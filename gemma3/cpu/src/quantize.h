// Float rows to packed panels. Layouts: kernels/panels.h.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"

namespace gemma3 {

// The rows of a matrix, contiguous, and what each of their inputs is multiplied by.
struct FloatRows {
    const float* values;   // (num_rows, num_inputs)
    const float* factors;  // (num_inputs)
    int num_rows, num_inputs;
};

// Where they go, padded to whole panels and groups.
struct PackedRows {
    uint8_t* panels;       // int8 or int4; of the embedding, the high nibbles
    uint8_t* low;          // the embedding's low nibbles
    uint8_t* multipliers;  // int4
    float* scales;
};

// The block of the rotation: the largest power of two up to 128 that divides the number of inputs.
int rotation_of(int num_inputs);

void quantize_int8(const Kernels&, const FloatRows&, const PackedRows&);
void quantize_int4(const Kernels&, const FloatRows&, const PackedRows&);
void quantize_embedding(const Kernels&, const FloatRows&, const PackedRows&);

}  // namespace gemma3
