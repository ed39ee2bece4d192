// AMX: tiles of 16 rows times 64 bytes. An int8 panel is a column of tiles as it lies, since its lines of 16 outputs x 4 inputs
// are what the tile instructions want. A tile row's result depends on that row alone, so batches stay invariant.
#define GEMMA3_ISA amx

#include <cstring>

#include "rows.h"
#include "vnni.h"
#include "table.h"

namespace gemma3::amx {
namespace {

struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};

// Tiles 0-3 hold sums, 4-5 rows of inputs, 6-7 weights. `depth`: lines of 4 bytes that a product sums over, at most 16.
void configure(int depth) {
    TileConfig config;
    for (int i = 0; i < 8; ++i) {
        config.row_bytes[i] = static_cast<uint16_t>(i == 4 || i == 5 ? 4 * depth : 64);
        config.rows[i] = static_cast<uint8_t>(i >= 6 ? depth : 16);
    }
    // GCC 12 believes that the instruction reads 8 of the 64 bytes, and may leave out the stores to the others.
    __asm__ volatile("" ::"r"(&config) : "memory");
    _tile_loadconfig(&config);
}

constexpr int kTile = 256;  // sums in a tile

template <bool kSecondRows, bool kSecondColumns>
GEMMA3_INLINE void zero_sums() {
    _tile_zero(0);
    if (kSecondColumns) _tile_zero(1);
    if (kSecondRows) _tile_zero(2);
    if (kSecondRows && kSecondColumns) _tile_zero(3);
}

template <bool kSecondRows, bool kSecondColumns, typename T>
GEMMA3_INLINE void store_sums(T* sums) {
    _tile_stored(0, sums, 64);
    if (kSecondColumns) _tile_stored(1, sums + kTile, 64);
    if (kSecondRows) _tile_stored(2, sums + 2 * kTile, 64);
    if (kSecondRows && kSecondColumns) _tile_stored(3, sums + 3 * kTile, 64);
}

// 16 or 32 rows x 1 or 2 panels; activations have room for whole tiles of rows.
template <bool kSecondRows, bool kSecondPanel>
GEMMA3_INLINE void multiply_tiles(const uint8_t* const* bytes, const int8_t* values, int num_inputs, int32_t* sums) {
    const int8_t* second = values + 16 * int64_t{num_inputs};
    zero_sums<kSecondRows, kSecondPanel>();
    for (int i = 0; i < num_inputs; i += 64) {
        _tile_loadd(4, values + i, num_inputs);
        _tile_loadd(6, bytes[0] + line_offset(i), 64);
        _tile_dpbsud(0, 4, 6);
        if (kSecondPanel) {
            _tile_loadd(7, bytes[1] + line_offset(i), 64);
            _tile_dpbsud(1, 4, 7);
        }
        if (kSecondRows) {
            _tile_loadd(5, second + i, num_inputs);
            _tile_dpbsud(2, 5, 6);
            if (kSecondPanel) _tile_dpbsud(3, 5, 7);
        }
    }
    store_sums<kSecondRows, kSecondPanel>(sums);
}

template <bool kSecondPanel, typename Out>
GEMMA3_INLINE void multiply_block_by_tiles(const uint8_t* const* bytes, const Activations& in, int row, int panel,
                                           const Out& out) {
    alignas(64) int32_t sums[4 * kTile];
    const int num_rows = in.num_rows - row < kRowBlock ? in.num_rows - row : kRowBlock;
    const int8_t* values = in.values + int64_t{row} * in.num_inputs;
    if (num_rows > 16) {
        multiply_tiles<true, kSecondPanel>(bytes, values, in.num_inputs, sums);
    } else {
        multiply_tiles<false, kSecondPanel>(bytes, values, in.num_inputs, sums);
    }
    for (int r = 0; r < num_rows; ++r) {
        const int32_t* found = sums + r / 16 * 2 * kTile + r % 16 * 16;
        out.store(_mm512_load_si512(found), panel, row + r);
        if (kSecondPanel) out.store(_mm512_load_si512(found + kTile), panel + 1, row + r);
    }
}

template <typename Out>
GEMMA3_INLINE void product(const Matrix& matrix, const Activations& in, int first, int last, const Out& out, uint8_t* scratch) {
    if (in.num_rows <= kStreamRows) return vnni_product(matrix, in, first, last, out, scratch);
    configure(16);
    const uint8_t* panels = unpacked_panels(matrix, first, last, scratch);
    const int64_t size = int64_t{kPanel} * in.num_inputs;
    for (int row = 0; row < in.num_rows; row += kRowBlock)
        for (int panel = first; panel < last; panel += 2) {
            const uint8_t* bytes[2] = {panels + (panel - first) * size, panels + (panel + 1 - first) * size};
            if (panel + 1 < last) {
                multiply_block_by_tiles<true>(bytes, in, row, panel, out);
            } else {
                multiply_block_by_tiles<false>(bytes, in, row, panel, out);
            }
        }
    _tile_release();
}

// Scores of 16 or 32 query rows with one or two blocks of 16 keys: a block of keys is a column of tiles as it lies.
template <bool kSecondRows, bool kSecondBlock>
GEMMA3_INLINE void score_tiles(const QueryRows& rows, const KeyBlocks& blocks, int block, float* sums) {
    const int dim = rows.head_dim;
    zero_sums<kSecondRows, kSecondBlock>();
    for (int d = 0; d < dim; d += 32) {
        _tile_loadd(4, rows.queries + d, 2 * dim);
        _tile_loadd(6, blocks.keys[block] + d * kBlockSize, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (kSecondBlock) {
            _tile_loadd(7, blocks.keys[block + 1] + d * kBlockSize, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (kSecondRows) {
            _tile_loadd(5, rows.queries + 16 * dim + d, 2 * dim);
            _tile_dpbf16ps(2, 5, 6);
            if (kSecondBlock) _tile_dpbf16ps(3, 5, 7);
        }
    }
    store_sums<kSecondRows, kSecondBlock>(sums);
}

// 32 dimensions of the sums of values: a block of 16 tokens is half a tile deep.
template <bool kSecondRows>
GEMMA3_INLINE void weigh_tiles(const uint16_t (*weights)[kKeyChunk], const KeyBlocks& blocks, int d, int dim, float* sums) {
    zero_sums<kSecondRows, true>();
    for (int b = 0; b < blocks.num_blocks; ++b) {
        _tile_loadd(4, weights[0] + b * kBlockSize, 2 * kKeyChunk);
        _tile_loadd(6, blocks.values[b] + 2 * d, 4 * dim);
        _tile_loadd(7, blocks.values[b] + 2 * d + 32, 4 * dim);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (kSecondRows) {
            _tile_loadd(5, weights[16] + b * kBlockSize, 2 * kKeyChunk);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    store_sums<kSecondRows, true>(sums);
}

// Two tiles side by side, for each 16 rows, to rows of `stride` floats.
GEMMA3_INLINE void copy_tiles(const float* sums, int num_rows, bool both, float* out, int64_t stride) {
    for (int r = 0; r < num_rows; ++r) {
        const float* found = sums + r / 16 * 2 * kTile + r % 16 * 16;
        store(out + r * stride, load(found));
        if (both) store(out + r * stride + 16, load(found + kTile));
    }
}

template <bool kSecondRows>
void attend_tiles(const QueryRows& rows, const KeyBlocks& blocks, const KeyRange* ranges) {
    alignas(64) float scores[kMaxRows][kKeyChunk];
    alignas(64) uint16_t weights[kMaxRows][kKeyChunk];
    alignas(64) float sums[4 * kTile];
    configure(16);
    for (int b = 0; b < blocks.num_blocks; b += 2) {
        const bool both = b + 1 < blocks.num_blocks;
        if (both) {
            score_tiles<kSecondRows, true>(rows, blocks, b, sums);
        } else {
            score_tiles<kSecondRows, false>(rows, blocks, b, sums);
        }
        copy_tiles(sums, rows.num_rows, both, scores[0] + b * kBlockSize, kKeyChunk);
    }
    for (int r = 0; r < rows.num_rows; ++r) {
        softmax_numerators(scores[r], ranges[r], rows, r);
        for (int i = 0; i < kKeyChunk; i += 32) {
            const __m512bh pair = _mm512_cvtne2ps_pbh(_mm512_load_ps(scores[r] + i + 16), _mm512_load_ps(scores[r] + i));
            memcpy(weights[r] + i, &pair, sizeof(pair));
        }
    }
    configure(kBlockSize / 2);
    for (int d = 0; d < rows.head_dim; d += 32) {
        weigh_tiles<kSecondRows>(weights, blocks, d, rows.head_dim, sums);
        copy_tiles(sums, rows.num_rows, true, rows.out + d, rows.head_dim);
    }
    _tile_release();
}

// Queries and weights are bfloat16 here, so the results differ from the other instruction sets' in the last of 8 bits.
void attend(const QueryRows& rows, const KeyBlocks& blocks, const KeyRange* ranges) {
    if (rows.num_rows > 16) {
        attend_tiles<true>(rows, blocks, ranges);
    } else {
        attend_tiles<false>(rows, blocks, ranges);
    }
}

}  // namespace
}  // namespace gemma3::amx

#include "products.h"

const gemma3::Kernels& gemma3::amx_kernels() {
    static constexpr Kernels kernels = amx::kernel_table("amx");
    return kernels;
}
