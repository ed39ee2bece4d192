// Integer products with NEON: int8 panels as they lie, nibbles unpacked in registers for few rows. Shared by the plain kernels
// and those with dot product and i8mm; what they differ in is in neon_blocks.h.
#pragma once

#include "kernels.h"
#include "neon_blocks.h"
#include "panels.h"
#include "target.h"
#include "unpack.h"

namespace gemma3::GEMMA3_ISA {
namespace {

// A line of nibbles holds two lines of bytes: the inputs of kLane and those of the next.
template <int kLane, int kRows>
GEMMA3_INLINE void add_nibble_line(const uint8_t* line, const int8x16_t* inputs, int32x4_t (*sums)[kQuads]) {
    for (int q = 0; q < kQuads; ++q) {
        const uint8x16_t packed = vld1q_u8(line + 16 * q);
        const uint8x16_t low = vandq_u8(packed, vdupq_n_u8(15)), high = vshrq_n_u8(packed, 4);
        for (int r = 0; r < kRows; ++r) {
            sums[r][q] = dot<kLane>(sums[r][q], low, inputs[r]);
            sums[r][q] = dot<kLane + 1>(sums[r][q], high, inputs[r]);
        }
    }
}

// Sums of nibbles 0..15 of the inputs [first, last), for kRows rows.
template <int kRows>
GEMMA3_INLINE void stream_nibbles(const uint8_t* panel, const Activations& in, int row, int first, int last,
                                  int32x4_t (*sums)[kQuads]) {
    for (int r = 0; r < kRows; ++r)
        for (int q = 0; q < kQuads; ++q) sums[r][q] = vdupq_n_s32(0);
    for (int i = first; i < last; i += kStepInputs) {
        int8x16_t inputs[kRows];
        for (int r = 0; r < kRows; ++r) inputs[r] = vld1q_s8(in.values + int64_t{row + r} * in.num_inputs + i);
        const uint8_t* lines = panel + nibble_line_offset(i);
        add_nibble_line<0, kRows>(lines, inputs, sums);
        add_nibble_line<2, kRows>(lines + kLine, inputs, sums);
    }
}

// 16 multipliers, four to a register.
GEMMA3_INLINE void widen_multipliers(const uint8_t* multipliers, int32x4_t* factors) {
    const int8x16_t bytes = vreinterpretq_s8_u8(vld1q_u8(multipliers));
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
    factors[0] = vmovl_s16(vget_low_s16(low));
    factors[1] = vmovl_high_s16(low);
    factors[2] = vmovl_s16(vget_low_s16(high));
    factors[3] = vmovl_high_s16(high);
}

// As if the weights were bytes: the caller takes off 128 * sum of the inputs.
template <int kRows>
GEMMA3_INLINE void stream_int4(const uint8_t* panel, const uint8_t* multipliers, const Activations& in, int row,
                               int32x4_t (*sums)[kQuads]) {
    const int groups = in.num_inputs / kGroup;
    for (int r = 0; r < kRows; ++r)
        for (int q = 0; q < kQuads; ++q) sums[r][q] = vdupq_n_s32(kByteOffset * in.sums[row + r]);
    for (int g = 0; g < groups; ++g) {
        int32x4_t partial[kRows][kQuads], factors[kQuads];
        stream_nibbles<kRows>(panel, in, row, g * kGroup, (g + 1) * kGroup, partial);
        widen_multipliers(multipliers + kPanel * g, factors);
        for (int r = 0; r < kRows; ++r) {
            const int32x4_t offset = vdupq_n_s32(kNibbleOffset * in.group_sums[int64_t{row + r} * groups + g]);
            for (int q = 0; q < kQuads; ++q)
                sums[r][q] = vmlaq_s32(sums[r][q], vsubq_s32(partial[r][q], offset), factors[q]);
        }
    }
}

// Where sums of 4 outputs go: dequantised into floats, or as they are.
struct FloatOut {
    const Matrix& matrix;
    const Activations& in;
    float* out;
    int64_t stride;
    GEMMA3_INLINE void store(int32x4_t sums, int output, int row) const {
        const float32x4_t scales = vmulq_n_f32(vld1q_f32(matrix.scales + output), in.scales[row]);
        const int32x4_t centred = vsubq_s32(sums, vdupq_n_s32(kByteOffset * in.sums[row]));
        vst1q_f32(out + row * stride + output, vmulq_f32(vcvtq_f32_s32(centred), scales));
    }
};
struct IntOut {
    int32_t* out;
    int64_t stride;
    int first_panel;
    GEMMA3_INLINE void store(int32x4_t sums, int output, int row) const {
        vst1q_s32(out + row * stride + output - kPanel * first_panel, sums);
    }
};

template <int kRows, int kSpan, typename Out>
GEMMA3_INLINE void store_block(const int32x4_t (*sums)[kSpan], int output, int row, const Out& out) {
    for (int r = 0; r < kRows; ++r)
        for (int q = 0; q < kSpan; ++q) out.store(sums[r][q], output + 4 * q, row + r);
}

// All rows, kRows of them, times the panels [first, last) of nibbles, read once as they lie.
template <int kRows, typename Out>
GEMMA3_INLINE void stream_panels(const Matrix& matrix, const Activations& in, int first, int last, const Out& out) {
    const int64_t group_bytes = int64_t{kPanel} * (in.num_inputs / kGroup);
    for (int panel = first; panel < last; ++panel) {
        const uint8_t* lines = matrix.panels + panel * matrix.panel_bytes();
        int32x4_t sums[kRows][kQuads];
        if (matrix.format == Format::kInt4) {
            stream_int4<kRows>(lines, matrix.multipliers + panel * group_bytes, in, 0, sums);
        } else {
            stream_nibbles<kRows>(lines, in, 0, 0, in.num_inputs, sums);
        }
        store_block<kRows>(sums, kPanel * panel, 0, out);
    }
}

// kRows rows from `row` on times the 4 * kSpan outputs from `output` on, of which `bytes` has the first line.
template <int kRows, int kSpan, typename Out>
GEMMA3_INLINE void multiply_block(const uint8_t* bytes, const Activations& in, int row, int output, const Out& out) {
    int32x4_t sums[kRows][kSpan];
    sum_block<kRows>(bytes, in, row, sums);
    store_block<kRows>(sums, output, row, out);
}

// The rows [row, last_row) times a panel of bytes. Sixteen registers of sums: eight rows take half a panel at a time, so that
// weights are loaded once for eight.
template <typename Out>
GEMMA3_INLINE void multiply_rows(const uint8_t* bytes, const Activations& in, int row, int last_row, int panel, const Out& out) {
    const int output = kPanel * panel;
    for (; row + 8 <= last_row; row += 8) {
        multiply_block<8, 2>(bytes, in, row, output, out);
        multiply_block<8, 2>(bytes + kLine / 2, in, row, output + kPanel / 2, out);
    }
    for (; row + 4 <= last_row; row += 4) multiply_block<4, 4>(bytes, in, row, output, out);
    for (; row + 2 <= last_row; row += 2) multiply_block<2, 4>(bytes, in, row, output, out);
    for (; row < last_row; ++row) multiply_block<1, 4>(bytes, in, row, output, out);
}

constexpr int kRowBlock = 32;  // rows that stay in the first cache while panels pass by

// All rows times the panels [first, last), to `out`; `scratch` as in kernels.h.
template <typename Out>
GEMMA3_INLINE void product(const Matrix& matrix, const Activations& in, int first, int last, const Out& out, uint8_t* scratch) {
    if (matrix.format != Format::kInt8) switch (in.num_rows) {
            case 1: return stream_panels<1>(matrix, in, first, last, out);
            case 2: return stream_panels<2>(matrix, in, first, last, out);
            case 3: return stream_panels<3>(matrix, in, first, last, out);
            case 4: return stream_panels<4>(matrix, in, first, last, out);
            default: break;
        }
    const uint8_t* panels = unpacked_panels(matrix, first, last, scratch);
    const int64_t size = int64_t{kPanel} * in.num_inputs;
    for (int row = 0; row < in.num_rows; row += kRowBlock) {
        const int last_row = in.num_rows < row + kRowBlock ? in.num_rows : row + kRowBlock;
        for (int panel = first; panel < last; ++panel)
            multiply_rows(panels + (panel - first) * size, in, row, last_row, panel, out);
    }
}

}  // namespace
}  // namespace gemma3::GEMMA3_ISA

#include "products.h"
