// AVX2 and FMA. Products of bytes saturate where a pair does not fit into 16 bits: inputs that could do so with any weights are
// halved and multiplied twice. Nibbles need no such care: pairs of at most 2 * 15 * 128, eight of which fit into 16 bits.
#define GEMMA3_ISA avx2

#include <cstring>

#include "attend.h"
#include "table.h"

namespace gemma3::avx2 {
namespace {

constexpr int kByteTileRows = 3;  // of four the sums fit into 16 registers too, but GCC spills some

}  // namespace
}  // namespace gemma3::avx2

#include "tiles.h"

namespace gemma3::avx2 {
namespace {

constexpr int kPairLines = 4;  // of nibbles, whose products add up in 16 bits: two of each line

// Four inputs that two passes share: their line, and what the second pass multiplies it with.
struct SecondPass {
    int32_t line_bytes;  // where the line begins in a panel
    int32_t inputs;
};

// A prepared row has the inputs of the first pass, a line that begins with the number of those of the second, and these.
GEMMA3_INLINE const SecondPass* second_pass(const uint8_t* row, int num_inputs) {
    return reinterpret_cast<const SecondPass*>(row + num_inputs + kLine);
}
GEMMA3_INLINE int32_t num_second(const uint8_t* row, int num_inputs) {
    int32_t num;
    memcpy(&num, row + num_inputs, sizeof num);
    return num;
}

// Signed bytes, halved and rounded down.
GEMMA3_INLINE __m256i halved(__m256i bytes) {
    const __m256i shifted = _mm256_srli_epi16(_mm256_xor_si256(bytes, _mm256_set1_epi8(-128)), 1);
    return _mm256_sub_epi8(_mm256_and_si256(shifted, _mm256_set1_epi8(127)), _mm256_set1_epi8(64));
}

// A pair of inputs that add up to more than 128 saturates where both weights are 255. Inputs of such lines are cut in halves,
// whose pairs reach 128 at most: 2 to 4 lines of 100, as inputs are distributed.
void make_safe(const int8_t* values, int num_inputs, uint8_t* row) {
    auto* second = reinterpret_cast<SecondPass*>(row + num_inputs + kLine);
    int32_t count = 0;
    for (int i = 0; i < num_inputs; i += 32) {
        __m256i inputs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + i));
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), inputs);
        const __m256i unsafe = _mm256_cmpgt_epi16(_mm256_abs_epi16(pairs), _mm256_set1_epi16(128));
        const __m256i safe_lines = _mm256_cmpeq_epi32(unsafe, _mm256_setzero_si256());
        unsigned lines = ~unsigned(_mm256_movemask_ps(_mm256_castsi256_ps(safe_lines))) & 255;
        if (lines) {
            const __m256i halves = halved(inputs);
            int32_t rest[8];
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(rest), _mm256_sub_epi8(inputs, halves));
            for (; lines; lines &= lines - 1) {
                const int line = __builtin_ctz(lines);
                second[count++] = {(i / kLineInputs + line) * kLine, rest[line]};
            }
            inputs = _mm256_blendv_epi8(halves, inputs, safe_lines);
        }
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(row + i), inputs);
    }
    memcpy(row + num_inputs, &count, sizeof count);
}

const void* prepare(const Activations& in, int first_row, int num_rows, uint8_t* scratch) {
    for (int r = 0; r < num_rows; ++r)
        make_safe(in.values + int64_t{first_row + r} * in.num_inputs, in.num_inputs, scratch + r * wide_row_bytes(in.num_inputs));
    return scratch;
}

const void* prepared_row(const void* prepared, int row, int num_inputs) {
    return static_cast<const uint8_t*>(prepared) + row * wide_row_bytes(num_inputs);
}

// Adds a line times four inputs.
GEMMA3_INLINE void add_line(const uint8_t* line, __m256i inputs, __m256i* sums) {
    for (int h = 0; h < kHalves; ++h) {
        const __m256i pairs = _mm256_maddubs_epi16(half_line(line, h), inputs);
        sums[h] = _mm256_add_epi32(sums[h], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
}

template <int kRows>
void tile_int8(const uint8_t* panel, const void* prepared, int num_inputs, Tile<kRows>& tile) {
    const auto* inputs = static_cast<const uint8_t*>(prepared);
    const int64_t stride = wide_row_bytes(num_inputs);
    __m256i sums[kRows][kHalves] = {};
    for (int i = 0; i < num_inputs; i += kLineInputs)
        for (int r = 0; r < kRows; ++r) add_line(panel + line_offset(i), splat(inputs + r * stride + i), sums[r]);
    for (int r = 0; r < kRows; ++r) {
        const uint8_t* row = inputs + r * stride;
        const SecondPass *second = second_pass(row, num_inputs), *end = second + num_second(row, num_inputs);
        for (; second < end; ++second) add_line(panel + second->line_bytes, _mm256_set1_epi32(second->inputs), sums[r]);
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
