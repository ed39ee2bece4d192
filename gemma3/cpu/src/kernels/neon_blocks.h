// Sums of a block of rows times a part of a panel with NEON, in registers. A line of a panel is four registers, a `quad` each:
// 4 outputs x 4 inputs. Which instruction multiplies a quad is what the plain, dot product and i8mm kernels differ in.
//
// All sums are those of bytes q + 128, as everywhere: where the instruction wants signed weights, bytes are made q by
// flipping their top bit, and sums begin with what that takes off.
#pragma once

#include "kernels.h"
#include "panels.h"
#include "target.h"

namespace gemma3::GEMMA3_ISA {
namespace {

constexpr int kQuads = 4;       // of a line
constexpr int kStepInputs = 16; // a register of a row's inputs: four lines of a panel

#if defined(__ARM_FEATURE_MATMUL_INT8)
constexpr int kTakenOff = 0;
GEMMA3_INLINE uint8x16_t weights_of(uint8x16_t bytes) { return bytes; }
#else
constexpr int kTakenOff = kByteOffset;
GEMMA3_INLINE uint8x16_t weights_of(uint8x16_t bytes) { return veorq_u8(bytes, vdupq_n_u8(kByteOffset)); }
#endif

// Adds 4 outputs' products with the inputs 4 * kLane .. 4 * kLane + 3 of 16. Weights lie within -128..127 (i8mm: 0..255).
template <int kLane>
GEMMA3_INLINE int32x4_t dot(int32x4_t sums, uint8x16_t weights, int8x16_t inputs) {
#if defined(__ARM_FEATURE_MATMUL_INT8)
    return vusdotq_laneq_s32(sums, weights, inputs, kLane);
#elif defined(__ARM_FEATURE_DOTPROD)
    return vdotq_laneq_s32(sums, vreinterpretq_s8_u8(weights), inputs, kLane);
#else
    // Two products of -128 * 127 fit 16 bits, since no input is -128; four would not.
    const int8x16_t four = vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(inputs), kLane));
    const int8x16_t by_output = vreinterpretq_s8_u8(weights);
    const int16x8_t low = vmull_s8(vget_low_s8(by_output), vget_low_s8(four)), high = vmull_high_s8(by_output, four);
    return vpadalq_s16(sums, vpaddq_s16(low, high));
#endif
}

// What the sums of a row begin with.
GEMMA3_INLINE int32x4_t start_of(const Activations& in, int row) { return vdupq_n_s32(kTakenOff * in.sums[row]); }

template <int kLane, int kRows, int kSpan>
GEMMA3_INLINE void add_line(const uint8_t* line, const int8x16_t* inputs, int32x4_t (*sums)[kSpan]) {
    for (int q = 0; q < kSpan; ++q) {
        const uint8x16_t weights = weights_of(vld1q_u8(line + 16 * q));
        for (int r = 0; r < kRows; ++r) sums[r][q] = dot<kLane>(sums[r][q], weights, inputs[r]);
    }
}

// kRows rows from `row` on times kSpan quads of a panel; `bytes` is where the first line has them.
template <int kRows, int kSpan>
GEMMA3_INLINE void dot_block(const uint8_t* bytes, const Activations& in, int row, int32x4_t (*sums)[kSpan]) {
    int32x4_t more[kRows][kSpan];  // of every other line, so that one addition need not wait for the one before
    constexpr bool kHasMore = kRows * kSpan <= 8;
    for (int r = 0; r < kRows; ++r)
        for (int q = 0; q < kSpan; ++q) {
            sums[r][q] = start_of(in, row + r);
            more[r][q] = vdupq_n_s32(0);
        }
    for (int i = 0; i < in.num_inputs; i += kStepInputs) {
        int8x16_t inputs[kRows];
        for (int r = 0; r < kRows; ++r) inputs[r] = vld1q_s8(in.values + int64_t{row + r} * in.num_inputs + i);
        const uint8_t* lines = bytes + line_offset(i);
        add_line<0, kRows>(lines, inputs, sums);
        add_line<1, kRows>(lines + kLine, inputs, kHasMore ? more : sums);
        add_line<2, kRows>(lines + 2 * kLine, inputs, sums);
        add_line<3, kRows>(lines + 3 * kLine, inputs, kHasMore ? more : sums);
    }
    for (int r = 0; r < kRows && kHasMore; ++r)
        for (int q = 0; q < kSpan; ++q) sums[r][q] = vaddq_s32(sums[r][q], more[r][q]);
}

#if defined(__ARM_FEATURE_MATMUL_INT8)
// Two lines of a quad, 4 outputs x 4 inputs each, to two times 2 outputs x 8 inputs.
struct OutputPairs {
    uint8x16_t low, high;
};
GEMMA3_INLINE OutputPairs outputs_of(const uint8_t* line) {
    const uint32x4_t a = vreinterpretq_u32_u8(vld1q_u8(line)), b = vreinterpretq_u32_u8(vld1q_u8(line + kLine));
    return {vreinterpretq_u8_u32(vzip1q_u32(a, b)), vreinterpretq_u8_u32(vzip2q_u32(a, b))};
}

// As dot_block; one instruction multiplies 2 outputs x 8 inputs with 8 inputs x 2 rows.
template <int kRows, int kSpan>
GEMMA3_INLINE void matrix_block(const uint8_t* bytes, const Activations& in, int row, int32x4_t (*sums)[kSpan]) {
    constexpr int kPairs = kRows / 2;
    int32x4_t low[kPairs][kSpan] = {}, high[kPairs][kSpan] = {};  // output 0 of both rows, output 1 of both; 2, 3
    for (int i = 0; i < in.num_inputs; i += 8) {
        int8x16_t inputs[kPairs];  // 8 of a row, then 8 of the next
        for (int p = 0; p < kPairs; ++p) {
            const int8_t* values = in.values + int64_t{row + 2 * p} * in.num_inputs + i;
            inputs[p] = vcombine_s8(vld1_s8(values), vld1_s8(values + in.num_inputs));
        }
        for (int q = 0; q < kSpan; ++q) {
            const OutputPairs outputs = outputs_of(bytes + line_offset(i) + 16 * q);
            for (int p = 0; p < kPairs; ++p) {
                low[p][q] = vusmmlaq_s32(low[p][q], outputs.low, inputs[p]);
                high[p][q] = vusmmlaq_s32(high[p][q], outputs.high, inputs[p]);
            }
        }
    }
    for (int p = 0; p < kPairs; ++p)
        for (int q = 0; q < kSpan; ++q) {
            sums[2 * p][q] = vuzp1q_s32(low[p][q], high[p][q]);
            sums[2 * p + 1][q] = vuzp2q_s32(low[p][q], high[p][q]);
        }
}
#endif

template <int kRows, int kSpan>
GEMMA3_INLINE void sum_block(const uint8_t* bytes, const Activations& in, int row, int32x4_t (*sums)[kSpan]) {
#if defined(__ARM_FEATURE_MATMUL_INT8)
    if constexpr (kRows % 2 == 0) return matrix_block<kRows>(bytes, in, row, sums);
#endif
    dot_block<kRows>(bytes, in, row, sums);
}

}  // namespace
}  // namespace gemma3::GEMMA3_ISA
