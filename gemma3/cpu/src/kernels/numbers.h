// Numbers that every part of the core agrees on.
#pragma once

#include <cstdint>
#include <cstring>

// Always inlined: the linker keeps one copy of an inline function, and a copy compiled for AVX512 must not serve others.
#define GEMMA3_INLINE inline __attribute__((always_inline))

namespace gemma3 {

// Adding 1.5 * 2^23 to a float rounds it to an integer (ties to even), which then stands in the low bits; compilers make
// vectors of it, unlike of a call of nearbyint. For |x| < 2^22.
constexpr float kRounder = 12582912.0f;
constexpr int32_t kRounderBits = 0x4b400000;

GEMMA3_INLINE constexpr int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// Rounded to nearest, ties to even.
GEMMA3_INLINE uint16_t bfloat16_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace gemma3
