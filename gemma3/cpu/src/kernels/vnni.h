// Integer products with AVX512-VNNI: one instruction multiplies a line of 64 weights with 4 inputs and adds to 16 sums.
// Shared by the AVX512 and the AMX kernels.
#pragma once

#include <cstring>

#include "kernels.h"
#include "panels.h"
#include "target.h"
#include "unpack.h"

namespace gemma3::GEMMA3_ISA {
namespace {

constexpr int kPrefetch = 4096;  // bytes ahead: measured, 17 -> 19 GB/s with two threads

// 4 inputs, for each of 16 outputs.
GEMMA3_INLINE __m512i splat_inputs(const int8_t* values) {
    int32_t packed;
    memcpy(&packed, values, 4);
    return _mm512_set1_epi32(packed);
}

GEMMA3_INLINE void prefetch(const uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p + kPrefetch), _MM_HINT_T0); }

// What is multiplied next, the two panels or the planes that make them: a line of each is asked for with every line of two
// panels that is multiplied. Memory would idle meanwhile: 16 rows over the whole head 24 -> 21 ms, prompts of 64 tokens and
// more 6 to 7 % faster.
struct Next {
    const uint8_t* lines[2];
    GEMMA3_INLINE void fetch(int i) const {
        for (const uint8_t* p : lines) _mm_prefetch(reinterpret_cast<const char*>(p + line_offset(i)), _MM_HINT_T1);
    }
};
struct Nothing {
    GEMMA3_INLINE void fetch(int) const {}
};

// Sums of kRows rows, each num_inputs long, times kPanels panels of bytes.
template <int kRows, int kPanels, typename Ahead>
GEMMA3_INLINE void dot_bytes(const uint8_t* const* bytes, const int8_t* values, int num_inputs, const Ahead& ahead,
                             __m512i (*sums)[kRows]) {
    for (int p = 0; p < kPanels; ++p)
        for (int r = 0; r < kRows; ++r) sums[p][r] = _mm512_setzero_si512();
    for (int i = 0; i < num_inputs; i += 4) {
        ahead.fetch(i);
        __m512i weights[kPanels];
        for (int p = 0; p < kPanels; ++p) weights[p] = _mm512_loadu_si512(bytes[p] + line_offset(i));
        for (int r = 0; r < kRows; ++r) {
            const __m512i inputs = splat_inputs(values + int64_t{r} * num_inputs + i);
            for (int p = 0; p < kPanels; ++p) sums[p][r] = _mm512_dpbusd_epi32(sums[p][r], weights[p], inputs);
        }
    }
}

// A few rows times one panel as it lies in memory, read once at the speed of memory. Two sums for each row, so that one
// addition need not wait for the one before.
template <int kRows>
GEMMA3_INLINE void stream_int8(const uint8_t* panel, const int8_t* values, int num_inputs, __m512i* sums) {
    __m512i partial[2][kRows] = {};
    for (int i = 0; i < num_inputs; i += 8) {
        for (int k = 0; k < 2; ++k) {
            const uint8_t* line = panel + line_offset(i + kLineInputs * k);
            prefetch(line);
            const __m512i weights = _mm512_loadu_si512(line);
            for (int r = 0; r < kRows; ++r)
                partial[k][r] = _mm512_dpbusd_epi32(partial[k][r], weights,
                                                    splat_inputs(values + int64_t{r} * num_inputs + i + 4 * k));
        }
    }
    for (int r = 0; r < kRows; ++r) sums[r] = _mm512_add_epi32(partial[0][r], partial[1][r]);
}

// The same of nibbles 0..15; rows of inputs are `stride` apart.
template <int kRows>
GEMMA3_INLINE void stream_nibbles(const uint8_t* panel, const int8_t* values, int num_inputs, int stride, __m512i* sums) {
    const __m512i mask = _mm512_set1_epi8(15);
    __m512i partial[2][kRows] = {};
    for (int i = 0; i < num_inputs; i += 8) {
        const uint8_t* line = panel + nibble_line_offset(i);
        prefetch(line);
        const __m512i packed = _mm512_loadu_si512(line);
        const __m512i low = _mm512_and_si512(packed, mask);
        const __m512i high = _mm512_and_si512(_mm512_srli_epi16(packed, 4), mask);
        for (int r = 0; r < kRows; ++r) {
            const int8_t* inputs = values + int64_t{r} * stride + i;
            partial[0][r] = _mm512_dpbusd_epi32(partial[0][r], low, splat_inputs(inputs));
            partial[1][r] = _mm512_dpbusd_epi32(partial[1][r], high, splat_inputs(inputs + 4));
        }
    }
    for (int r = 0; r < kRows; ++r) sums[r] = _mm512_add_epi32(partial[0][r], partial[1][r]);
}

// As if the weights were bytes: the caller takes off 128 * sum of the inputs.
template <int kRows>
GEMMA3_INLINE void stream_int4(const uint8_t* panel, const uint8_t* multipliers, const Activations& in, int row, __m512i* sums) {
    const int groups = in.num_inputs / kGroup;
    for (int r = 0; r < kRows; ++r) sums[r] = _mm512_set1_epi32(kByteOffset * in.sums[row + r]);
    for (int g = 0; g < groups; ++g) {
        __m512i partial[kRows];
        stream_nibbles<kRows>(panel + nibble_line_offset(g * kGroup), in.values + int64_t{row} * in.num_inputs + g * kGroup, kGroup,
                              in.num_inputs, partial);
        const __m512i factors = _mm512_maskz_cvtepi8_epi32(
            0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(multipliers + kPanel * g)));
        for (int r = 0; r < kRows; ++r) {
            const __m512i offset = _mm512_set1_epi32(kNibbleOffset * in.group_sums[int64_t{row + r} * groups + g]);
            sums[r] = _mm512_add_epi32(sums[r], _mm512_mullo_epi32(_mm512_sub_epi32(partial[r], offset), factors));
        }
    }
}

// kRows rows from `row` on times the panel `index`, whatever its format.
template <int kRows>
GEMMA3_INLINE void stream_panel(const Matrix& matrix, int index, const Activations& in, int row, __m512i* sums) {
    const uint8_t* panel = matrix.panels + index * matrix.panel_bytes();
    const int8_t* values = in.values + int64_t{row} * in.num_inputs;
    if (matrix.format == Format::kInt8) {
        stream_int8<kRows>(panel, values, in.num_inputs, sums);
    } else if (matrix.format == Format::kNibbles) {
        stream_nibbles<kRows>(panel, values, in.num_inputs, in.num_inputs, sums);
    } else {
        stream_int4<kRows>(panel, matrix.multipliers + int64_t{index} * kPanel * (in.num_inputs / kGroup), in, row, sums);
    }
}

// Where sums go: dequantised into floats, or as they are.
struct FloatOut {
    const Matrix& matrix;
    const Activations& in;
    float* out;
    int64_t stride;
    GEMMA3_INLINE void store(__m512i sums, int panel, int row) const {
        const __m512 scales = _mm512_mul_ps(_mm512_loadu_ps(matrix.scales + kPanel * panel), _mm512_set1_ps(in.scales[row]));
        const __m512i centred = _mm512_sub_epi32(sums, _mm512_set1_epi32(kByteOffset * in.sums[row]));
        _mm512_storeu_ps(out + row * stride + kPanel * panel, _mm512_mul_ps(_mm512_cvtepi32_ps(centred), scales));
    }
};
struct IntOut {
    int32_t* out;
    int64_t stride;
    int first_panel;
    GEMMA3_INLINE void store(__m512i sums, int panel, int row) const {
        _mm512_storeu_si512(out + row * stride + kPanel * (panel - first_panel), sums);
    }
};

// The same of the panels [first, last), to `out`.
template <int kRows, typename Out>
GEMMA3_INLINE void stream_panels(const Matrix& matrix, const Activations& in, int row, int first, int last, const Out& out) {
    for (int panel = first; panel < last; ++panel) {
        __m512i sums[kRows];
        stream_panel<kRows>(matrix, panel, in, row, sums);
        for (int r = 0; r < kRows; ++r) out.store(sums[r], panel, row + r);
    }
}

// kRows rows from `row` on times kPanels unpacked panels, the first of which is `panel`.
template <int kRows, int kPanels, typename Ahead, typename Out>
GEMMA3_INLINE void multiply_block(const uint8_t* const* bytes, const Activations& in, int row, int panel, const Ahead& ahead,
                                  const Out& out) {
    __m512i sums[kPanels][kRows];
    dot_bytes<kRows, kPanels>(bytes, in.values + int64_t{row} * in.num_inputs, in.num_inputs, ahead, sums);
    for (int p = 0; p < kPanels; ++p)
        for (int r = 0; r < kRows; ++r) out.store(sums[p][r], panel + p, row + r);
}

// The rows [row, last_row), in blocks of 8, 2 and 1; `ahead` beside the first.
template <int kPanels, typename Ahead, typename Out>
GEMMA3_INLINE void multiply_rows(const uint8_t* const* bytes, const Activations& in, int row, int last_row, int panel,
                                 const Ahead& ahead, const Out& out) {
    if (row + 8 <= last_row) {
        multiply_block<8, kPanels>(bytes, in, row, panel, ahead, out);
        row += 8;
    } else if (row + 2 <= last_row) {
        multiply_block<2, kPanels>(bytes, in, row, panel, ahead, out);
        row += 2;
    }
    for (; row + 8 <= last_row; row += 8) multiply_block<8, kPanels>(bytes, in, row, panel, Nothing(), out);
    for (; row + 2 <= last_row; row += 2) multiply_block<2, kPanels>(bytes, in, row, panel, Nothing(), out);
    for (; row < last_row; ++row) multiply_block<1, kPanels>(bytes, in, row, panel, Nothing(), out);
}

constexpr int kRowBlock = 32;   // rows that stay in the first cache while panels pass by
constexpr int kStreamRows = 4;  // up to here a step is bound by memory: panels are read as they lie

// All rows times the panels [first, last), to `out`; `scratch` as in kernels.h.
template <typename Out>
GEMMA3_INLINE void vnni_product(const Matrix& matrix, const Activations& in, int first, int last, const Out& out,
                                uint8_t* scratch) {
    switch (in.num_rows) {
        case 1: return stream_panels<1>(matrix, in, 0, first, last, out);
        case 2: return stream_panels<2>(matrix, in, 0, first, last, out);
        case 3: return stream_panels<3>(matrix, in, 0, first, last, out);
        case kStreamRows: return stream_panels<kStreamRows>(matrix, in, 0, first, last, out);
        default: break;
    }
    const uint8_t* panels = unpacked_panels(matrix, first, last, scratch);
    const int64_t size = int64_t{kPanel} * in.num_inputs;
    for (int row = 0; row < in.num_rows; row += kRowBlock) {
        const int last_row = in.num_rows < row + kRowBlock ? in.num_rows : row + kRowBlock;
        for (int panel = first; panel < last; panel += 2) {
            const uint8_t* bytes[2] = {panels + (panel - first) * size, panels + (panel + 1 - first) * size};
            const int64_t offset = (panel - first) * size / 2;  // of nibbles
            if (panel + 1 == last) {
                multiply_rows<1>(bytes, in, row, last_row, panel, Nothing(), out);
            } else if (matrix.next[0] && row == 0) {
                multiply_rows<2>(bytes, in, row, last_row, panel, Next{{matrix.next[0] + offset, matrix.next[1] + offset}}, out);
            } else if (matrix.format == Format::kInt8 && row == 0) {
                multiply_rows<2>(bytes, in, row, last_row, panel, Next{{bytes[0] + 2 * size, bytes[1] + 2 * size}}, out);
            } else {
                multiply_rows<2>(bytes, in, row, last_row, panel, Nothing(), out);
            }
        }
    }
}

}  // namespace
}  // namespace gemma3::GEMMA3_ISA
