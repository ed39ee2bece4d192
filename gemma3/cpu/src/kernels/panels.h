// How packed weights lie in memory. What is in the file, by name and shape: gemma3/cpu/packed_layout.py.
//
// A panel is 16 outputs (rows of a matrix). It is a run of lines of 64 bytes, a cache line each. A line of an int8 panel holds
// 4 inputs of each output, as bytes q + 128, since products of unsigned with signed bytes take the unsigned ones first:
//
//              output 0       output 1             output 15
//     line 0   i0 i1 i2 i3 |  i0 i1 i2 i3 |  ...  | i0 i1 i2 i3
//     line 1   i4 i5 i6 i7 |  i4 i5 i6 i7 |  ...  | i4 i5 i6 i7
//
// A line of a nibble panel holds two such lines, so 8 inputs: the first in its low nibbles, the second in its high ones.
// int4 has besides a multiplier for each output and group of 64 inputs: 16 signed bytes a group, one for each output, of 1 to 15
// or -1 to -15. Of nibbles, -8 reaches further than 7: the sign turns a group so that its longer tail lies there.
// Outputs are padded to whole panels, inputs to whole groups. A panel's bytes: 16 * inputs, or half of that.
#pragma once

#include "numbers.h"

namespace gemma3 {

constexpr int kPanel = 16;           // outputs that share a panel
constexpr int kGroup = 64;           // inputs that share a 4-bit multiplier; inputs are padded to a multiple of it
constexpr int kLine = 64;            // bytes
constexpr int kLineInputs = 4;       // of an int8 line
constexpr int kNibbleInputs = 8;     // of a line of nibbles
constexpr int kByteOffset = 128;     // what a byte has more than the weight
constexpr int kNibbleOffset = 8;     // what a nibble of int4 has more than the weight
constexpr int kMaxMultiplier = 15;  // and its least is -15

static_assert(kLine == kPanel * kLineInputs && kLine == kPanel * kNibbleInputs / 2);

// Where the int8 line that begins with `input` (a multiple of 4) starts in its panel; and the line of nibbles (of 8).
GEMMA3_INLINE constexpr int line_offset(int input) { return kLine / kLineInputs * input; }
GEMMA3_INLINE constexpr int nibble_line_offset(int input) { return kLine / kNibbleInputs * input; }

// Where an int8 weight lies in its panel; `output` is counted within the panel.
GEMMA3_INLINE constexpr int byte_offset(int output, int input) {
    return input / kLineInputs * kLine + output * kLineInputs + input % kLineInputs;
}

// A nibble (0..15) of a nibble panel.
GEMMA3_INLINE int nibble_at(const uint8_t* panel, int output, int input) {
    const int line = input / kLineInputs;  // of int8
    const int shift = line % 2 * 4;
    return panel[line / 2 * kLine + output * kLineInputs + input % kLineInputs] >> shift & 15;
}

}  // namespace gemma3
