// Matrix products panel by panel and row by row, for instruction sets whose `dot` needs nothing more.
#pragma once

#include "kernels.h"
#include "panels.h"
#include "target.h"
#include "unpack.h"

namespace gemma3::GEMMA3_ISA {
namespace {

// The 16 sums of a panel's bytes times a row's values; defined by the including file.
void dot(const uint8_t* bytes, const int8_t* values, int num_inputs, int32_t* sums);

// y = (sum of byte * value - 128 * sum of values) * scales: bytes are weights + 128.
void dequantize(const int32_t* sums, const Matrix& matrix, int panel, const Activations& in, int row, float* out) {
    const float* scales = matrix.scales + kPanel * panel;
    for (int o = 0; o < kPanel; ++o)
        out[o] = static_cast<float>(sums[o] - kByteOffset * in.sums[row]) * (scales[o] * in.scales[row]);
}

void matmul(const Matrix& matrix, const Activations& in, int first_panel, int last_panel, float* out, int64_t out_stride,
            uint8_t* scratch) {
    const uint8_t* panels = unpacked_panels(matrix, first_panel, last_panel, scratch);
    for (int panel = first_panel; panel < last_panel; ++panel) {
        const uint8_t* bytes = panels + int64_t{panel - first_panel} * kPanel * in.num_inputs;
        for (int row = 0; row < in.num_rows; ++row) {
            int32_t sums[kPanel];
            dot(bytes, in.values + int64_t{row} * in.num_inputs, in.num_inputs, sums);
            dequantize(sums, matrix, panel, in, row, out + row * out_stride + kPanel * panel);
        }
    }
}

void matmul_nibbles(const Matrix& matrix, const Activations& in, int first_panel, int last_panel, int32_t* out,
                    int64_t out_stride, uint8_t* scratch) {
    const uint8_t* panels = unpacked_panels(matrix, first_panel, last_panel, scratch);
    for (int panel = first_panel; panel < last_panel; ++panel) {
        const uint8_t* bytes = panels + int64_t{panel - first_panel} * kPanel * in.num_inputs;
        for (int row = 0; row < in.num_rows; ++row)
            dot(bytes, in.values + int64_t{row} * in.num_inputs, in.num_inputs,
                out + row * out_stride + kPanel * (panel - first_panel));
    }
}

}  // namespace
}  // namespace gemma3::GEMMA3_ISA
