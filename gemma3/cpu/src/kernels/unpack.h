// A panel of nibbles to the bytes that an int8 panel has.
#pragma once

#include <cstring>

#include "kernels.h"
#include "panels.h"
#include "target.h"

namespace gemma3::GEMMA3_ISA {
namespace {

typedef uint8_t Line __attribute__((vector_size(kLine), aligned(1), may_alias));
typedef uint16_t Pairs __attribute__((vector_size(kLine), may_alias));

GEMMA3_INLINE Line line_at(const uint8_t* p) { return *reinterpret_cast<const Line*>(p); }
GEMMA3_INLINE Line low_nibbles(Line packed) { return packed & 15; }
GEMMA3_INLINE Line high_nibbles(Line packed) { return reinterpret_cast<Line>(reinterpret_cast<Pairs>(packed) >> 4) & 15; }

// Products of bytes modulo 256. No instruction of x86 has them: there even and odd bytes apart, in 16 bits.
GEMMA3_INLINE Line multiply_bytes(Line a, Line b) {
#if defined(__aarch64__)
    return a * b;
#else
    const Pairs x = reinterpret_cast<Pairs>(a), y = reinterpret_cast<Pairs>(b);
    return reinterpret_cast<Line>((x * y & 0xff) | ((x >> 8) * (y >> 8)) << 8);
#endif
}

// The multipliers of a group (16), each for the inputs of its output in a line.
GEMMA3_INLINE Line repeated(const uint8_t* bytes) {
    uint32_t words[16];
    for (int i = 0; i < 16; ++i) words[i] = bytes[i] * 0x01010101u;
    Line line;
    memcpy(&line, words, sizeof(line));
    return line;
}

GEMMA3_INLINE void store_line(uint8_t* p, Line line) { *reinterpret_cast<Line*>(p) = line; }

// Nibbles 0..15 as they are. A line of nibbles makes two of bytes. By the byte, since GCC keeps a `Line` in memory where
// registers are narrower: on AVX2 that took three times as long.
void unpack_nibbles(const uint8_t* __restrict panel, int num_inputs, uint8_t* __restrict bytes) {
    for (int line = 0; line < num_inputs / kNibbleInputs; ++line, panel += kLine, bytes += 2 * kLine) {
        for (int i = 0; i < kLine; ++i) bytes[i] = panel[i] & 15;
        for (int i = 0; i < kLine; ++i) bytes[kLine + i] = panel[i] >> 4;
    }
}

// multiplier * (nibble - 8) + 128, modulo 256, where the true values lie in 8..248: the bytes of int8 weights.
void unpack_int4(const uint8_t* panel, const uint8_t* multipliers, int num_inputs, uint8_t* bytes) {
    constexpr int kGroupLines = kGroup / kNibbleInputs;
    for (int group = 0; group < num_inputs / kGroup; ++group) {
        const Line factors = repeated(multipliers + kPanel * group);
        for (int line = kGroupLines * group; line < kGroupLines * (group + 1); ++line) {
            const Line packed = line_at(panel + kLine * line);
            const Line low = multiply_bytes(low_nibbles(packed) - kNibbleOffset, factors) + kByteOffset;
            const Line high = multiply_bytes(high_nibbles(packed) - kNibbleOffset, factors) + kByteOffset;
            store_line(bytes + 2 * kLine * line, low);
            store_line(bytes + 2 * kLine * line + kLine, high);
        }
    }
}

// The bytes of the panels [first, last): where they lie, or unpacked into `scratch`.
const uint8_t* unpacked_panels(const Matrix& matrix, int first, int last, uint8_t* scratch) {
    const int64_t size = int64_t{kPanel} * matrix.num_inputs, groups = matrix.num_inputs / kGroup;
    if (matrix.format == Format::kInt8) return matrix.panels + first * size;
    for (int panel = first; panel < last; ++panel) {
        const uint8_t* packed = matrix.panels + panel * matrix.panel_bytes();
        uint8_t* bytes = scratch + (panel - first) * size;
        if (matrix.format == Format::kNibbles) {
            unpack_nibbles(packed, matrix.num_inputs, bytes);
        } else {
            unpack_int4(packed, matrix.multipliers + panel * kPanel * groups, matrix.num_inputs, bytes);
        }
    }
    return scratch;
}

}  // namespace
}  // namespace gemma3::GEMMA3_ISA
