// Vectors of 16 lanes, in parts as wide as the instruction set's registers: GCC keeps wider ones in memory.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "target.h"

namespace gemma3::GEMMA3_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif
constexpr int kParts = 16 / kWidth;

template <typename T>
struct Lanes {
    typedef T Part __attribute__((vector_size(4 * kWidth)));
    Part parts[kParts];

    Lanes() = default;
    GEMMA3_INLINE Lanes(T x) {  // a number stands for 16 of it
        for (Part& part : parts) part = x - Part{};  // not a sum: -0 + 0 is 0, which costs an addition
    }
    friend GEMMA3_INLINE Lanes operator+(Lanes a, Lanes b) {
        for (int p = 0; p < kParts; ++p) a.parts[p] += b.parts[p];
        return a;
    }
    friend GEMMA3_INLINE Lanes operator-(Lanes a, Lanes b) {
        for (int p = 0; p < kParts; ++p) a.parts[p] -= b.parts[p];
        return a;
    }
    friend GEMMA3_INLINE Lanes operator*(Lanes a, Lanes b) {
        for (int p = 0; p < kParts; ++p) a.parts[p] *= b.parts[p];
        return a;
    }
    friend GEMMA3_INLINE Lanes operator/(Lanes a, Lanes b) {
        for (int p = 0; p < kParts; ++p) a.parts[p] /= b.parts[p];
        return a;
    }
    friend GEMMA3_INLINE Lanes operator&(Lanes a, Lanes b) {
        for (int p = 0; p < kParts; ++p) a.parts[p] &= b.parts[p];
        return a;
    }
    friend GEMMA3_INLINE Lanes operator<<(Lanes a, int count) {
        for (Part& part : a.parts) part <<= count;
        return a;
    }
};
using Floats = Lanes<float>;
using Ints = Lanes<int32_t>;
using Words = Lanes<uint32_t>;

// From memory of any type and alignment.
template <typename Vector>
GEMMA3_INLINE Vector load_as(const void* from) {
    Vector v;
    for (int p = 0; p < kParts; ++p)
        memcpy(&v.parts[p], static_cast<const uint8_t*>(from) + p * sizeof(v.parts[p]), sizeof(v.parts[p]));
    return v;
}
GEMMA3_INLINE Floats load(const float* from) { return load_as<Floats>(from); }
GEMMA3_INLINE void store(float* to, Floats v) {
    for (int p = 0; p < kParts; ++p) memcpy(to + p * kWidth, &v.parts[p], sizeof(v.parts[p]));
}
// The low byte of each lane.
GEMMA3_INLINE void store_bytes(int8_t* to, Ints v) {
    typedef int8_t Bytes __attribute__((vector_size(kWidth)));
    for (int p = 0; p < kParts; ++p) {
        const Bytes bytes = __builtin_convertvector(v.parts[p], Bytes);
        memcpy(to + p * kWidth, &bytes, sizeof(bytes));
    }
}

// The same bits as lanes of another type.
template <typename To, typename From>
GEMMA3_INLINE To bits_as(From from) {
    To to;
    for (int p = 0; p < kParts; ++p) to.parts[p] = reinterpret_cast<typename To::Part>(from.parts[p]);
    return to;
}
GEMMA3_INLINE Floats to_floats(Ints v) {
    Floats out;
    for (int p = 0; p < kParts; ++p) out.parts[p] = __builtin_convertvector(v.parts[p], Floats::Part);
    return out;
}

GEMMA3_INLINE Floats larger(Floats a, Floats b) {
    for (int p = 0; p < kParts; ++p) a.parts[p] = a.parts[p] > b.parts[p] ? a.parts[p] : b.parts[p];
    return a;
}
GEMMA3_INLINE Floats smaller(Floats a, Floats b) {
    for (int p = 0; p < kParts; ++p) a.parts[p] = a.parts[p] < b.parts[p] ? a.parts[p] : b.parts[p];
    return a;
}
// `value`, but 0 where x < bound.
GEMMA3_INLINE Floats zero_below(Floats x, Floats bound, Floats value) {
    for (int p = 0; p < kParts; ++p) value.parts[p] = x.parts[p] < bound.parts[p] ? Floats::Part{} : value.parts[p];
    return value;
}

// a * b + c, rounded once where the instruction set has that, twice elsewhere. Compilers contract nothing of their own
// accord (-ffp-contract=off), so results depend neither on the compiler nor on what is inlined where.
#if defined(__FMA__)
GEMMA3_INLINE float madd(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
GEMMA3_INLINE Floats madd(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
    c.parts[0] = _mm512_fmadd_ps(a.parts[0], b.parts[0], c.parts[0]);
#else
    for (int p = 0; p < kParts; ++p) c.parts[p] = _mm256_fmadd_ps(a.parts[p], b.parts[p], c.parts[p]);
#endif
    return c;
}
#else
GEMMA3_INLINE float madd(float a, float b, float c) { return a * b + c; }
GEMMA3_INLINE Floats madd(Floats a, Floats b, Floats c) { return a * b + c; }
#endif

template <int kStride, int... kLane>
GEMMA3_INLINE Floats::Part swapped(Floats::Part v, std::integer_sequence<int, kLane...>) {
    return __builtin_shufflevector(v, v, (kLane ^ kStride)...);
}
// Lane i changes places with lane i ^ kStride.
template <int kStride>
GEMMA3_INLINE Floats swapped(Floats v) {
    Floats out;
    for (int p = 0; p < kParts; ++p) {
        if constexpr (kStride < kWidth) {
            out.parts[p] = swapped<kStride>(v.parts[p], std::make_integer_sequence<int, kWidth>());
        } else {
            out.parts[p] = v.parts[p ^ kStride / kWidth];
        }
    }
    return out;
}

// Each lane to the sum with its partner, or to the difference in the upper of the two.
template <int kStride>
GEMMA3_INLINE Floats butterfly(Floats v) {
    Floats sign;
    for (int i = 0; i < 16; ++i) sign.parts[i / kWidth][i % kWidth] = i & kStride ? -1.0f : 1.0f;
    return swapped<kStride>(v) + v * sign;
}

// Of all lanes, folded in halves: 0 with 8, 1 with 9 ..., then 0 with 4 ...
GEMMA3_INLINE float sum_lanes(Floats v) {
    v = v + swapped<8>(v);
    v = v + swapped<4>(v);
    v = v + swapped<2>(v);
    return v.parts[0][0] + v.parts[0][1];
}
GEMMA3_INLINE float max_lanes(Floats v) {
    v = larger(v, swapped<8>(v));
    v = larger(v, swapped<4>(v));
    v = larger(v, swapped<2>(v));
    v = larger(v, swapped<1>(v));
    return v.parts[0][0];
}
GEMMA3_INLINE int32_t sum_lanes(Ints v) {
    int32_t sum = 0;
    for (int p = 0; p < kParts; ++p)
        for (int i = 0; i < kWidth; ++i) sum += v.parts[p][i];
    return sum;
}

// e^x within 2 ulp for -87 < x < 88; 0 below, the largest of the range above. Cephes' expf polynomial.
GEMMA3_INLINE Floats exp_lanes(Floats x) {
    const Floats bounded = larger(smaller(x, 88.0f), -87.0f);
    const Floats shifted = madd(bounded, 1.44269504088896341f, kRounder);
    const Floats n = shifted - kRounder;
    const Floats f = madd(n, 2.12194440e-4f, madd(n, -0.693359375f, bounded));
    Floats p = 1.9875691500e-4f;
    p = madd(p, f, 1.3981999507e-3f);
    p = madd(p, f, 8.3334519073e-3f);
    p = madd(p, f, 4.1665795894e-2f);
    p = madd(p, f, 1.6666665459e-1f);
    p = madd(p, f, 5.0000001201e-1f);
    p = madd(p * f, f, f) + 1.0f;
    const Words exponent = (bits_as<Words>(shifted) - kRounderBits) << 23;
    return zero_below(x, -87.0f, bits_as<Floats>(bits_as<Words>(p) + exponent));
}

}  // namespace
}  // namespace gemma3::GEMMA3_ISA
