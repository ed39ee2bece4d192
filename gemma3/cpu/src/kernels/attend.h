// Attention in float32 over bfloat16 keys and values, for instruction sets without bfloat16 products.
#pragma once

#include <cstring>

#include "kernels.h"
#include "lanes.h"
#include "rows.h"

namespace gemma3::GEMMA3_ISA {
namespace {

// Even and odd bfloat16 of 16 pairs.
GEMMA3_INLINE Floats even(Words w) { return bits_as<Floats>(w << 16); }
GEMMA3_INLINE Floats odd(Words w) { return bits_as<Floats>(w & 0xffff0000u); }
GEMMA3_INLINE Words load_pairs(const uint16_t* p) { return load_as<Words>(p); }

// Two registers of sums for each, four of a pair of keys and one of a query: of 16, so that none is spilled.
constexpr int kAttendRows = 5;

GEMMA3_INLINE void widen(const uint16_t* bfloats, int size, float* out) {
    for (int i = 0; i < size; ++i) {
        const uint32_t bits = uint32_t{bfloats[i]} << 16;
        memcpy(out + i, &bits, sizeof bits);
    }
}

// sums[r] += x[r * stride] * v
template <int kRows>
GEMMA3_INLINE void add_products(const float* x, int stride, Floats v, Floats* sums) {
    for (int r = 0; r < kRows; ++r) sums[r] = madd(Floats(x[int64_t{r} * stride]), v, sums[r]);
}

// The blocks [first, last) of a chunk that some of the rows [row, row + num_rows) see: a window begins and ends within chunks.
struct BlockRange {
    int first, last;
};
GEMMA3_INLINE BlockRange seen_blocks(const KeyRange* ranges, int row, int num_rows, int num_blocks) {
    int first = kKeyChunk, last = 0;
    for (int r = row; r < row + num_rows; ++r) {
        if (ranges[r].first >= ranges[r].last) continue;
        first = first < ranges[r].first ? first : ranges[r].first;
        last = last > ranges[r].last ? last : ranges[r].last;
    }
    last = (last + kBlockSize - 1) / kBlockSize;
    return {first / kBlockSize, last < num_blocks ? last : num_blocks};
}

// kRows query rows against all keys of a chunk: the lanes are 16 keys for the scores, 16 dimensions for the values. The
// queries lie as floats where the sums will: no sum is written before all scores are known.
template <int kRows>
void attend_rows(const QueryRows& rows, const KeyBlocks& blocks, const KeyRange* ranges, int row) {
    float scores[kRows * kKeyChunk];
    const int dim = rows.head_dim;
    float* out = rows.out + int64_t{row} * dim;
    widen(rows.queries + int64_t{row} * dim, kRows * dim, out);
    const BlockRange seen = seen_blocks(ranges, row, kRows, blocks.num_blocks);
    for (int b = seen.first; b < seen.last; ++b) {
        Floats sums[kRows] = {};
        for (int d = 0; d < dim; d += 2) {
            const Words pairs = load_pairs(blocks.keys[b] + int64_t{d} * kBlockSize);
            add_products<kRows>(out + d, dim, even(pairs), sums);
            add_products<kRows>(out + d + 1, dim, odd(pairs), sums);
        }
        for (int r = 0; r < kRows; ++r) store(scores + r * kKeyChunk + b * kBlockSize, sums[r]);
    }
    for (int r = 0; r < kRows; ++r) softmax_numerators(scores + r * kKeyChunk, ranges[row + r], rows, row + r);
    for (int d = 0; d < dim; d += 16) {
        Floats sums[kRows] = {};
        for (int b = seen.first; b < seen.last; ++b)
            for (int i = 0; i < kBlockSize; i += 2) {
                const Words pairs = load_pairs(blocks.values[b] + int64_t{i} * dim + 2 * d);
                add_products<kRows>(scores + b * kBlockSize + i, kKeyChunk, even(pairs), sums);
                add_products<kRows>(scores + b * kBlockSize + i + 1, kKeyChunk, odd(pairs), sums);
            }
        for (int r = 0; r < kRows; ++r) store(out + int64_t{r} * dim + d, sums[r]);
    }
}

void attend(const QueryRows& rows, const KeyBlocks& blocks, const KeyRange* ranges) {
    int row = 0;
    for (; row + kAttendRows <= rows.num_rows; row += kAttendRows) attend_rows<kAttendRows>(rows, blocks, ranges, row);
    for (; row + 2 <= rows.num_rows; row += 2) attend_rows<2>(rows, blocks, ranges, row);
    for (; row < rows.num_rows; ++row) attend_rows<1>(rows, blocks, ranges, row);
}

}  // namespace
}  // namespace gemma3::GEMMA3_ISA
