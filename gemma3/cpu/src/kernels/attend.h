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
// One pair, 16 times.
GEMMA3_INLINE Words splat_pair(const uint16_t* p) {
    uint32_t pair;
    memcpy(&pair, p, 4);
    return pair;
}

// kRows query rows against all keys of a chunk: the lanes are 16 keys for the scores, 16 dimensions for the values.
template <int kRows>
void attend_rows(const QueryRows& rows, const KeyBlocks& blocks, const KeyRange* ranges, int row) {
    float scores[kRows][kKeyChunk];
    const int dim = rows.head_dim;
    for (int b = 0; b < blocks.num_blocks; ++b) {
        Floats sums[kRows] = {};
        for (int d = 0; d < dim; d += 2) {
            const Words pairs = load_pairs(blocks.keys[b] + int64_t{d} * kBlockSize);
            const Floats k0 = even(pairs), k1 = odd(pairs);
            for (int r = 0; r < kRows; ++r) {
                const Words q = splat_pair(rows.queries + int64_t{row + r} * dim + d);
                sums[r] = madd(even(q), k0, sums[r]);
                sums[r] = madd(odd(q), k1, sums[r]);
            }
        }
        for (int r = 0; r < kRows; ++r) store(scores[r] + b * kBlockSize, sums[r]);
    }
    for (int r = 0; r < kRows; ++r) softmax_numerators(scores[r], ranges[row + r], rows, row + r);
    for (int d = 0; d < dim; d += 16) {
        Floats sums[kRows] = {};
        for (int b = 0; b < blocks.num_blocks; ++b)
            for (int i = 0; i < kBlockSize; i += 2) {
                const Words pairs = load_pairs(blocks.values[b] + int64_t{i} * dim + 2 * d);
                const Floats v0 = even(pairs), v1 = odd(pairs);
                for (int r = 0; r < kRows; ++r) {
                    sums[r] = madd(v0, scores[r][b * kBlockSize + i], sums[r]);
                    sums[r] = madd(v1, scores[r][b * kBlockSize + i + 1], sums[r]);
                }
            }
        for (int r = 0; r < kRows; ++r) store(rows.out + int64_t{row + r} * dim + d, sums[r]);
    }
}

void attend(const QueryRows& rows, const KeyBlocks& blocks, const KeyRange* ranges) {
    int row = 0;
    for (; row + 4 <= rows.num_rows; row += 4) attend_rows<4>(rows, blocks, ranges, row);
    for (; row < rows.num_rows; ++row) attend_rows<1>(rows, blocks, ranges, row);
}

}  // namespace
}  // namespace gemma3::GEMMA3_ISA
