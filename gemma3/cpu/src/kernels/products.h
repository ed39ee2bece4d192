// The products of `table.h`, of this instruction set's own `product`: the same sums go to floats, or as they are.
#pragma once

#include "table.h"

namespace gemma3::GEMMA3_ISA {
namespace {

void matmul(const Matrix& matrix, const Activations& in, int first_panel, int last_panel, float* out, int64_t out_stride,
            uint8_t* scratch) {
    product(matrix, in, first_panel, last_panel, FloatOut{matrix, in, out, out_stride}, scratch);
}

void matmul_nibbles(const Matrix& matrix, const Activations& in, int first_panel, int last_panel, int32_t* out,
                    int64_t out_stride, uint8_t* scratch) {
    product(matrix, in, first_panel, last_panel, IntOut{out, out_stride, first_panel}, scratch);
}

}  // namespace
}  // namespace gemma3::GEMMA3_ISA
