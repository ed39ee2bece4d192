// The AVX-VNNI, AVX512 and AMX intrinsics that the kernels use, in plain C++, for a processor that has AVX2 only: included before
// all else (-include), so that their files run on any x86-64 machine. For tests: it is many times slower.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace emulated {

typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(64)));
typedef int8_t Chars __attribute__((vector_size(64)));
typedef int8_t Chars16 __attribute__((vector_size(16)));

inline __m512i wide(Ints x) { return (__m512i)x; }
inline Ints ints(__m512i x) { return (Ints)x; }

template <typename T>
inline T load(const void* p) {
    T x;
    std::memcpy(&x, p, sizeof(x));
    return x;
}

template <typename Vector>
inline Vector dpbusd(Vector sums, Vector bytes, Vector values) {
    int32_t out[sizeof(Vector) / 4];
    uint8_t b[sizeof(Vector)];
    int8_t v[sizeof(Vector)];
    std::memcpy(out, &sums, sizeof(Vector));
    std::memcpy(b, &bytes, sizeof(Vector));
    std::memcpy(v, &values, sizeof(Vector));
    for (size_t i = 0; i < sizeof(Vector); ++i) out[i / 4] += b[i] * v[i];
    return load<Vector>(out);
}

inline uint16_t bfloat16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float widened(const uint8_t* p) {
    const uint32_t bits = uint32_t{load<uint16_t>(p)} << 16;
    return load<float>(&bits);
}

inline __m512bh to_bfloat16(__m512 high, __m512 low) {
    uint16_t out[32];
    for (int i = 0; i < 16; ++i) {
        out[i] = bfloat16(low[i]);
        out[16 + i] = bfloat16(high[i]);
    }
    return load<__m512bh>(out);
}

struct Tile {
    int rows = 0, row_bytes = 0;
    uint8_t bytes[16][64] = {};
};
inline thread_local Tile tiles[8];

inline void configure(const void* config) {
    const auto* bytes = static_cast<const uint8_t*>(config);
    for (int i = 0; i < 8; ++i) {
        tiles[i] = Tile();
        tiles[i].row_bytes = load<uint16_t>(bytes + 16 + 2 * i);
        tiles[i].rows = bytes[48 + i];
    }
}

inline void load_tile(int t, const void* p, int64_t stride) {
    for (int r = 0; r < tiles[t].rows; ++r)
        std::memcpy(tiles[t].bytes[r], static_cast<const uint8_t*>(p) + r * stride, size_t(tiles[t].row_bytes));
}

inline void store_tile(int t, void* p, int64_t stride) {
    for (int r = 0; r < tiles[t].rows; ++r)
        std::memcpy(static_cast<uint8_t*>(p) + r * stride, tiles[t].bytes[r], size_t(tiles[t].row_bytes));
}

// sums[m][n] += the products of the 4 bytes of a[m][k] and b[k][n], over all k.
template <typename T, typename Product>
inline void multiply(int sums, int a, int b, const Product& product) {
    for (int m = 0; m < tiles[sums].rows; ++m)
        for (int k = 0; k < tiles[b].rows; ++k)
            for (int n = 0; n < tiles[sums].row_bytes / 4; ++n) {
                T sum = load<T>(tiles[sums].bytes[m] + 4 * n);
                sum += product(tiles[a].bytes[m] + 4 * k, tiles[b].bytes[k] + 4 * n);
                std::memcpy(tiles[sums].bytes[m] + 4 * n, &sum, 4);
            }
}

inline int32_t signed_by_unsigned(const uint8_t* a, const uint8_t* b) {
    int32_t sum = 0;
    for (int i = 0; i < 4; ++i) sum += static_cast<int8_t>(a[i]) * b[i];
    return sum;
}

inline float bfloat16_pair(const uint8_t* a, const uint8_t* b) {
    return widened(a) * widened(b) + widened(a + 2) * widened(b + 2);
}

}  // namespace emulated

#define _mm512_add_epi32(a, b) emulated::wide(emulated::ints(a) + emulated::ints(b))
#define _mm512_sub_epi32(a, b) emulated::wide(emulated::ints(a) - emulated::ints(b))
#define _mm512_mullo_epi32(a, b) emulated::wide(emulated::ints(a) * emulated::ints(b))
#define _mm512_and_si512(a, b) ((a) & (b))
#define _mm512_srli_epi16(a, n) ((__m512i)((emulated::Halves)(a) >> (n)))
#define _mm512_cvtepi32_ps(a) __builtin_convertvector(emulated::ints(a), __m512)
#define _mm512_cvtne2ps_pbh(a, b) emulated::to_bfloat16(a, b)
#define _mm512_dpbusd_epi32(a, b, c) emulated::dpbusd<__m512i>(a, b, c)
#define _mm256_dpbusd_avx_epi32(a, b, c) emulated::dpbusd<__m256i>(a, b, c)
#define _mm512_load_ps(p) emulated::load<__m512>(p)
#define _mm512_loadu_ps(p) emulated::load<__m512>(p)
#define _mm512_load_si512(p) emulated::load<__m512i>(p)
#define _mm512_loadu_si512(p) emulated::load<__m512i>(p)
#define _mm512_storeu_ps(p, x) [](void* q, __m512 v) { std::memcpy(q, &v, 64); }(p, x)
#define _mm512_storeu_si512(p, x) [](void* q, __m512i v) { std::memcpy(q, &v, 64); }(p, x)
#define _mm512_maskz_cvtepi8_epi32(mask, x) emulated::wide(__builtin_convertvector((emulated::Chars16)(x), emulated::Ints))
#define _mm512_mul_ps(a, b) ((a) * (b))
#define _mm512_set1_epi32(x) emulated::wide(emulated::Ints{} + (x))
#define _mm512_set1_epi8(x) ((__m512i)(emulated::Chars{} + (x)))
#define _mm512_set1_ps(x) (__m512{} + (x))
#define _mm512_setzero_si512() (__m512i{})
#undef _tile_loadconfig
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_release
#undef _tile_dpbsud
#undef _tile_dpbf16ps
#define _tile_loadconfig(p) emulated::configure(p)
#define _tile_loadd(t, p, stride) emulated::load_tile(t, p, stride)
#define _tile_stored(t, p, stride) emulated::store_tile(t, p, stride)
#define _tile_zero(t) std::memset(emulated::tiles[t].bytes, 0, sizeof(emulated::tiles[t].bytes))
#define _tile_release() (void)0
#define _tile_dpbsud(c, a, b) emulated::multiply<int32_t>(c, a, b, emulated::signed_by_unsigned)
#define _tile_dpbf16ps(c, a, b) emulated::multiply<float>(c, a, b, emulated::bfloat16_pair)
