// AVX-VNNI: the products of AVX512-VNNI in registers of 32 bytes, for processors that have no AVX512.
#define GEMMA3_ISA avxvnni

#include <cstring>

#include "attend.h"
#include "table.h"

namespace gemma3::avxvnni {
namespace {

constexpr int kByteTileRows = 5;

}  // namespace
}  // namespace gemma3::avxvnni

#include "tiles.h"

namespace gemma3::avxvnni {
namespace {

const void* prepare(const Activations& in, int first_row, int, uint8_t*) {
    return in.values + int64_t{first_row} * in.num_inputs;
}

const void* prepared_row(const void* prepared, int row, int num_inputs) {
    return static_cast<const int8_t*>(prepared) + int64_t{row} * num_inputs;
}

// Adds what four inputs of each row give; rows are `stride` apart.
template <int kRows>
GEMMA3_INLINE void add_products(const __m256i* weights, const int8_t* inputs, int stride, Tile<kRows>& tile) {
    for (int r = 0; r < kRows; ++r) {
        const __m256i x = splat(inputs + int64_t{r} * stride);
        for (int h = 0; h < kHalves; ++h) tile.sums[r][h] = _mm256_dpbusd_avx_epi32(tile.sums[r][h], weights[h], x);
    }
}

template <int kRows>
void tile_int8(const uint8_t* panel, const void* prepared, int num_inputs, Tile<kRows>& tile) {
    tile.clear();
    for (int i = 0; i < num_inputs; i += kLineInputs) {
        const uint8_t* line = panel + line_offset(i);
        const __m256i weights[] = {half_line(line, 0), half_line(line, 1)};
        add_products(weights, static_cast<const int8_t*>(prepared) + i, num_inputs, tile);
    }
}

template <int kRows>
GEMMA3_INLINE void add_nibbles(const uint8_t* lines, const int8_t* values, int num_inputs, int stride, Tile<kRows>& tile) {
    for (int i = 0; i < num_inputs; i += kNibbleInputs) {
        const uint8_t* line = lines + nibble_line_offset(i);
        const __m256i low[] = {low_nibbles(half_line(line, 0)), low_nibbles(half_line(line, 1))};
        add_products(low, values + i, stride, tile);
        const __m256i high[] = {high_nibbles(half_line(line, 0)), high_nibbles(half_line(line, 1))};
        add_products(high, values + i + kLineInputs, stride, tile);
    }
}

template <int kRows>
void tile_nibbles(const uint8_t* panel, const int8_t* values, int num_inputs, Tile<kRows>& tile) {
    tile.clear();
    add_nibbles(panel, values, num_inputs, num_inputs, tile);
}

// multiplier * (nibble - 8)
template <int kRows>
void tile_int4(const uint8_t* panel, const uint8_t* multipliers, const Activations& in, int row, Tile<kRows>& tile) {
    const int groups = in.num_inputs / kGroup;
    tile.clear();
    for (int g = 0; g < groups; ++g) {
        Tile<kRows> group;
        for (int r = 0; r < kRows; ++r)
            group.sums[r][0] = group.sums[r][1] = _mm256_set1_epi32(-kNibbleOffset * in.group_sums[int64_t{row + r} * groups + g]);
        add_nibbles(panel + nibble_line_offset(g * kGroup), in.values + int64_t{row} * in.num_inputs + g * kGroup, kGroup,
                    in.num_inputs, group);
        for (int h = 0; h < kHalves; ++h) {
            const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(multipliers + kPanel * g + 8 * h));
            const __m256i factors = _mm256_cvtepi8_epi32(bytes);
            for (int r = 0; r < kRows; ++r)
                tile.sums[r][h] = _mm256_add_epi32(tile.sums[r][h], _mm256_mullo_epi32(group.sums[r][h], factors));
        }
    }
}

}  // namespace
}  // namespace gemma3::avxvnni

const gemma3::Kernels& gemma3::avxvnni_kernels() {
    static constexpr Kernels kernels = avxvnni::kernel_table("avxvnni");
    return kernels;
}
