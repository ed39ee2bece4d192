// The two planes of the embedding to the int8 panels that they are the nibbles of.
#pragma once

#include "panels.h"
#include "target.h"

namespace gemma3::GEMMA3_ISA {
namespace {

// Nibbles of two planes to the bytes 16 * high + low. By the byte, since GCC keeps a vector of 64 bytes in memory where
// registers are narrower.
void join_planes(const uint8_t* __restrict high, const uint8_t* __restrict low, int64_t num_lines, uint8_t* __restrict bytes) {
    for (int64_t line = 0; line < num_lines; ++line, high += kLine, low += kLine, bytes += 2 * kLine) {
        for (int i = 0; i < kLine; ++i) bytes[i] = static_cast<uint8_t>((high[i] & 15) << 4 | (low[i] & 15));
        for (int i = 0; i < kLine; ++i) bytes[kLine + i] = static_cast<uint8_t>((high[i] & 0xf0) | low[i] >> 4);
    }
}

}  // namespace
}  // namespace gemma3::GEMMA3_ISA
