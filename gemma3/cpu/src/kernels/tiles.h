// Integer products with registers of 32 bytes, in tiles of up to six rows times one panel, so that each line of weights is
// taken apart once for some rows, whose sums stay in registers. Shared by AVX2 and AVX-VNNI, which define kByteTileRows before:
// the rows of a tile of int8.
#pragma once

#include <cstring>

#include "kernels.h"
#include "panels.h"
#include "target.h"

namespace gemma3::GEMMA3_ISA {
namespace {

constexpr int kTileRows = 6;

// Half a line: 4 inputs of 8 outputs.
constexpr int kHalves = 2;
constexpr int kHalfLine = kLine / kHalves;

GEMMA3_INLINE __m256i half_line(const uint8_t* line, int half) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line + kHalfLine * half));
}
// The next four bytes, for each of eight outputs.
GEMMA3_INLINE __m256i splat(const void* inputs) {
    int32_t packed;
    memcpy(&packed, inputs, 4);
    return _mm256_set1_epi32(packed);
}
GEMMA3_INLINE __m256i low_nibbles(__m256i packed) { return _mm256_and_si256(packed, _mm256_set1_epi8(15)); }
GEMMA3_INLINE __m256i high_nibbles(__m256i packed) { return low_nibbles(_mm256_srli_epi16(packed, 4)); }

// The sums of kRows rows times one panel.
template <int kRows>
struct Tile {
    __m256i sums[kRows][kHalves];

    GEMMA3_INLINE void clear() {
        for (auto& row : sums)
            for (__m256i& half : row) half = _mm256_setzero_si256();
    }
};

// What the including file defines. Sums of kRows rows from `row` on; int8 reads rows that `prepare` has made of them.
const void* prepare(const Activations& in, int first_row, int num_rows, uint8_t* scratch);
const void* prepared_row(const void* prepared, int row, int num_inputs);
template <int kRows>
void tile_int8(const uint8_t* panel, const void* prepared, int num_inputs, Tile<kRows>& tile);
template <int kRows>
void tile_nibbles(const uint8_t* panel, const int8_t* values, int num_inputs, Tile<kRows>& tile);
template <int kRows>
void tile_int4(const uint8_t* panel, const uint8_t* multipliers, const Activations& in, int row, Tile<kRows>& tile);

// Where sums go: dequantised into floats, or as they are.
struct FloatOut {
    const Matrix& matrix;
    const Activations& in;
    float* out;
    int64_t stride;
    GEMMA3_INLINE void store(const __m256i* sums, int panel, int row) const {
        const int offset = matrix.format == Format::kInt8 ? kByteOffset * in.sums[row] : 0;
        for (int h = 0; h < kHalves; ++h) {
            const int first = kPanel * panel + 8 * h;
            const __m256 scales = _mm256_mul_ps(_mm256_loadu_ps(matrix.scales + first), _mm256_set1_ps(in.scales[row]));
            const __m256i centred = _mm256_sub_epi32(sums[h], _mm256_set1_epi32(offset));
            _mm256_storeu_ps(out + row * stride + first, _mm256_mul_ps(_mm256_cvtepi32_ps(centred), scales));
        }
    }
};
struct IntOut {
    int32_t* out;
    int64_t stride;
    int first_panel;
    GEMMA3_INLINE void store(const __m256i* sums, int panel, int row) const {
        int32_t* to = out + row * stride + kPanel * (panel - first_panel);
        for (int h = 0; h < kHalves; ++h) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 8 * h), sums[h]);
    }
};

// One matrix times some rows, which lie prepared from `first_row` on.
template <typename Out>
struct Product {
    const Matrix& matrix;
    const Activations& in;
    const Out& out;
    int first_row;
    const void* prepared;
};

template <int kRows, typename Out>
void multiply_tile(const Product<Out>& product, int row, int panel) {
    const Matrix& matrix = product.matrix;
    const Activations& in = product.in;
    const uint8_t* weights = matrix.panels + panel * matrix.panel_bytes();
    Tile<kRows> tile;
    if (matrix.format == Format::kInt8) {
        tile_int8(weights, prepared_row(product.prepared, row - product.first_row, in.num_inputs), in.num_inputs, tile);
    } else if (matrix.format == Format::kNibbles) {
        tile_nibbles(weights, in.values + int64_t{row} * in.num_inputs, in.num_inputs, tile);
    } else {
        tile_int4(weights, matrix.multipliers + int64_t{panel} * kPanel * (in.num_inputs / kGroup), in, row, tile);
    }
    for (int r = 0; r < kRows; ++r) product.out.store(tile.sums[r], panel, row + r);
}

template <typename Out>
void multiply_rows(const Product<Out>& product, int row, int num_rows, int panel) {
    switch (num_rows) {
        case 1: return multiply_tile<1>(product, row, panel);
        case 2: return multiply_tile<2>(product, row, panel);
        case 3: return multiply_tile<3>(product, row, panel);
        case 4: return multiply_tile<4>(product, row, panel);
        case 5: return multiply_tile<5>(product, row, panel);
        default: return multiply_tile<kTileRows>(product, row, panel);
    }
}

// All rows times the panels [first, last): kWideRows rows stay in the first caches while the panels pass by.
template <typename Out>
void product(const Matrix& matrix, const Activations& in, int first, int last, const Out& out, uint8_t* scratch) {
    for (int row = 0; row < in.num_rows; row += kWideRows) {
        const int end = in.num_rows < row + kWideRows ? in.num_rows : row + kWideRows;
        const void* prepared = matrix.format == Format::kInt8 ? prepare(in, row, end - row, scratch) : nullptr;
        const Product<Out> rows{matrix, in, out, row, prepared};
        const int tile_rows = matrix.format == Format::kInt8 ? kByteTileRows : kTileRows;
        const int num_tiles = (end - row + tile_rows - 1) / tile_rows;
        for (int panel = first; panel < last; ++panel) {
            for (int t = 0, from = row; t < num_tiles; ++t) {  // as even as can be: 8 rows are 4 and 4, not 6 and 2
                const int count = (end - from) / (num_tiles - t);
                multiply_rows(rows, from, count, panel);
                from += count;
            }
        }
    }
}

}  // namespace
}  // namespace gemma3::GEMMA3_ISA

#include "products.h"
