// AVX2 and FMA. There is no product of bytes that cannot saturate, so int8 takes 16-bit products of even and odd inputs, and
// nibbles are multiplied as bytes: pairs of at most 2 * 15 * 128, eight of which fit into 16 bits.
#define GEMMA3_ISA avx2

#include <cstring>

#include "attend.h"
#include "table.h"
#include "tiles.h"

namespace gemma3::avx2 {
namespace {

constexpr int kPairLines = 4;  // of nibbles, whose products add up in 16 bits: two of each line

// Rows of 16 bits: of each four inputs 0 2 1 3, as the even and odd bytes of a line want them.
const void* prepare(const Activations& in, int first_row, int num_rows, uint8_t* scratch) {
    const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15,  //
                                           0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
    const int8_t* values = in.values + int64_t{first_row} * in.num_inputs;
    for (int64_t i = 0; i < int64_t{num_rows} * in.num_inputs; i += 16) {
        const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values + i)));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(scratch + 2 * i), _mm256_shuffle_epi8(wide, order));
    }
    return scratch;
}

const void* prepared_row(const void* prepared, int row, int num_inputs) {
    return static_cast<const uint8_t*>(prepared) + int64_t{row} * 2 * num_inputs;
}

template <int kRows>
void tile_int8(const uint8_t* panel, const void* prepared, int num_inputs, Tile<kRows>& tile) {
    const auto* inputs = static_cast<const int16_t*>(prepared);
    const __m256i low_bytes = _mm256_set1_epi16(255);
    __m256i sums[kRows][kHalves] = {};
    for (int i = 0; i < num_inputs; i += kLineInputs) {
        const uint8_t* line = panel + line_offset(i);
        const __m256i even[] = {_mm256_and_si256(half_line(line, 0), low_bytes), _mm256_and_si256(half_line(line, 1), low_bytes)};
        for (int r = 0; r < kRows; ++r) {
            const __m256i x = splat(inputs + int64_t{r} * num_inputs + i);
            for (int h = 0; h < kHalves; ++h) sums[r][h] = _mm256_add_epi32(sums[r][h], _mm256_madd_epi16(even[h], x));
        }
        const __m256i odd[] = {_mm256_srli_epi16(half_line(line, 0), 8), _mm256_srli_epi16(half_line(line, 1), 8)};
        for (int r = 0; r < kRows; ++r) {
            const __m256i x = splat(inputs + int64_t{r} * num_inputs + i + 2);
            for (int h = 0; h < kHalves; ++h) sums[r][h] = _mm256_add_epi32(sums[r][h], _mm256_madd_epi16(odd[h], x));
        }
    }
    memcpy(tile.sums, sums, sizeof sums);
}

// Pairs of products of kPairLines lines of nibbles, in 16 bits; rows of inputs are `stride` apart.
template <int kRows>
GEMMA3_INLINE void nibble_pairs(const uint8_t* lines, const int8_t* values, int stride, __m256i (*pairs)[kHalves]) {
    for (int r = 0; r < kRows; ++r) pairs[r][0] = pairs[r][1] = _mm256_setzero_si256();
    for (int k = 0; k < kPairLines; ++k) {
        const uint8_t* line = lines + kLine * k;
        const __m256i low[] = {low_nibbles(half_line(line, 0)), low_nibbles(half_line(line, 1))};
        for (int r = 0; r < kRows; ++r) {
            const __m256i x = splat(values + int64_t{r} * stride + kNibbleInputs * k);
            for (int h = 0; h < kHalves; ++h) pairs[r][h] = _mm256_add_epi16(pairs[r][h], _mm256_maddubs_epi16(low[h], x));
        }
        const __m256i high[] = {high_nibbles(half_line(line, 0)), high_nibbles(half_line(line, 1))};
        for (int r = 0; r < kRows; ++r) {
            const __m256i x = splat(values + int64_t{r} * stride + kNibbleInputs * k + kLineInputs);
            for (int h = 0; h < kHalves; ++h) pairs[r][h] = _mm256_add_epi16(pairs[r][h], _mm256_maddubs_epi16(high[h], x));
        }
    }
}

// Adds the pairs, each times its factor of 16 bits.
template <int kRows>
GEMMA3_INLINE void add_pairs(const __m256i (*pairs)[kHalves], const __m256i* factors, Tile<kRows>& tile) {
    for (int r = 0; r < kRows; ++r)
        for (int h = 0; h < kHalves; ++h)
            tile.sums[r][h] = _mm256_add_epi32(tile.sums[r][h], _mm256_madd_epi16(pairs[r][h], factors[h]));
}

template <int kRows>
void tile_nibbles(const uint8_t* panel, const int8_t* values, int num_inputs, Tile<kRows>& tile) {
    const __m256i ones[] = {_mm256_set1_epi16(1), _mm256_set1_epi16(1)};
    tile.clear();
    for (int i = 0; i < num_inputs; i += kPairLines * kNibbleInputs) {
        __m256i pairs[kRows][kHalves];
        nibble_pairs<kRows>(panel + nibble_line_offset(i), values + i, num_inputs, pairs);
        add_pairs(pairs, ones, tile);
    }
}

// multiplier * (nibble - 8): 8 times the sum of a group's inputs comes off in two halves, which fit into 16 bits.
template <int kRows>
void tile_int4(const uint8_t* panel, const uint8_t* multipliers, const Activations& in, int row, Tile<kRows>& tile) {
    const int groups = in.num_inputs / kGroup;
    tile.clear();
    for (int g = 0; g < groups; ++g) {
        __m256i factors[kHalves];
        for (int h = 0; h < kHalves; ++h) {
            const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(multipliers + kPanel * g + 8 * h));
            const __m256i words = _mm256_cvtepi8_epi32(bytes);
            factors[h] = _mm256_blend_epi16(words, _mm256_slli_epi32(words, 16), 0xaa);
        }
        __m256i pairs[kRows][kHalves];
        for (int r = 0; r < kRows; ++r) {
            const int32_t sum = in.group_sums[int64_t{row + r} * groups + g];
            pairs[r][0] = pairs[r][1] = _mm256_set1_epi16(static_cast<int16_t>(-kNibbleOffset / 2 * sum));
        }
        add_pairs(pairs, factors, tile);
        for (int i = g * kGroup; i < (g + 1) * kGroup; i += kPairLines * kNibbleInputs) {
            nibble_pairs<kRows>(panel + nibble_line_offset(i), in.values + int64_t{row} * in.num_inputs + i, in.num_inputs, pairs);
            add_pairs(pairs, factors, tile);
        }
    }
}

}  // namespace
}  // namespace gemma3::avx2

const gemma3::Kernels& gemma3::avx2_kernels() {
    static constexpr Kernels kernels = avx2::kernel_table("avx2");
    return kernels;
}
