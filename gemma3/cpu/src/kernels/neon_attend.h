// Attention with NEON, in float32 over bfloat16 keys and values. The lanes are 4 keys for the scores, 4 dimensions for the
// values. Where there are products of bfloat16, scores are sums of those: exact products of two pairs, rounded twice (to odd).
// The weights of the values stay float32.
#pragma once

#include "kernels.h"
#include "rows.h"
#include "target.h"

namespace gemma3::GEMMA3_ISA {
namespace {

constexpr int kRegisters = 4;  // of a row's sums: 16 keys or 16 dimensions

// Even and odd bfloat16 of 4 pairs.
GEMMA3_INLINE uint32x4_t load_pairs(const uint16_t* p) { return vreinterpretq_u32_u16(vld1q_u16(p)); }
GEMMA3_INLINE float32x4_t even(uint32x4_t pairs) { return vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16)); }
GEMMA3_INLINE float32x4_t odd(uint32x4_t pairs) { return vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xffff0000u))); }

// A row's factors of 4 pairs.
struct Factors {
    float32x4_t even, odd;
};

// Adds to the sums of kRows rows: 4 registers of pairs, times the factors in lane kLane.
template <int kLane, int kRows>
GEMMA3_INLINE void add_pairs(const uint16_t* p, const Factors* factors, float32x4_t (*sums)[kRegisters]) {
    for (int q = 0; q < kRegisters; ++q) {
        const uint32x4_t pairs = load_pairs(p + 8 * q);
        const float32x4_t first = even(pairs), second = odd(pairs);
        for (int r = 0; r < kRows; ++r) {
            sums[r][q] = vfmaq_laneq_f32(sums[r][q], first, factors[r].even, kLane);
            sums[r][q] = vfmaq_laneq_f32(sums[r][q], second, factors[r].odd, kLane);
        }
    }
}

template <int kRows>
GEMMA3_INLINE void zero(float32x4_t (*sums)[kRegisters]) {
    for (int r = 0; r < kRows; ++r)
        for (int q = 0; q < kRegisters; ++q) sums[r][q] = vdupq_n_f32(0);
}

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
// Pairs of 8 dimensions of a query.
using Query = bfloat16x8_t;
GEMMA3_INLINE Query load_query(const uint16_t* p) { return vreinterpretq_bf16_u16(vld1q_u16(p)); }

template <int kLane, int kRows>
GEMMA3_INLINE void add_scores(const uint16_t* keys, const Query* queries, float32x4_t (*sums)[kRegisters]) {
    for (int q = 0; q < kRegisters; ++q) {
        const bfloat16x8_t pairs = load_query(keys + 8 * q);
        for (int r = 0; r < kRows; ++r) sums[r][q] = vbfdotq_laneq_f32(sums[r][q], pairs, queries[r], kLane);
    }
}
#else
using Query = Factors;
GEMMA3_INLINE Query load_query(const uint16_t* p) { return {even(load_pairs(p)), odd(load_pairs(p))}; }

template <int kLane, int kRows>
GEMMA3_INLINE void add_scores(const uint16_t* keys, const Query* queries, float32x4_t (*sums)[kRegisters]) {
    add_pairs<kLane, kRows>(keys, queries, sums);
}
#endif

// Scores of kRows rows with the 16 keys of a block.
template <int kRows>
GEMMA3_INLINE void score_block(const uint16_t* queries, const uint16_t* keys, int dim, float (*scores)[kKeyChunk], int first_key) {
    float32x4_t sums[kRows][kRegisters];
    zero<kRows>(sums);
    for (int d = 0; d < dim; d += 8) {
        Query factors[kRows];
        for (int r = 0; r < kRows; ++r) factors[r] = load_query(queries + int64_t{r} * dim + d);
        const uint16_t* lines = keys + int64_t{d} * kBlockSize;
        add_scores<0, kRows>(lines, factors, sums);
        add_scores<1, kRows>(lines + 2 * kBlockSize, factors, sums);
        add_scores<2, kRows>(lines + 4 * kBlockSize, factors, sums);
        add_scores<3, kRows>(lines + 6 * kBlockSize, factors, sums);
    }
    for (int r = 0; r < kRows; ++r)
        for (int q = 0; q < kRegisters; ++q) vst1q_f32(scores[r] + first_key + 4 * q, sums[r][q]);
}

// 16 dimensions, from `d` on, of the sums of all values.
template <int kRows>
GEMMA3_INLINE void weigh_values(const float (*weights)[kKeyChunk], const KeyBlocks& blocks, int d, int dim, float* out) {
    float32x4_t sums[kRows][kRegisters];
    zero<kRows>(sums);
    for (int key = 0; key < kBlockSize * blocks.num_blocks; key += 8) {
        Factors factors[kRows];
        for (int r = 0; r < kRows; ++r) {
            const float32x4x2_t both = vld2q_f32(weights[r] + key);
            factors[r] = {both.val[0], both.val[1]};
        }
        const uint16_t* lines = blocks.values[key / kBlockSize] + int64_t{key % kBlockSize} * dim + 2 * d;
        add_pairs<0, kRows>(lines, factors, sums);
        add_pairs<1, kRows>(lines + 2 * dim, factors, sums);
        add_pairs<2, kRows>(lines + 4 * dim, factors, sums);
        add_pairs<3, kRows>(lines + 6 * dim, factors, sums);
    }
    for (int r = 0; r < kRows; ++r)
        for (int q = 0; q < kRegisters; ++q) vst1q_f32(out + int64_t{r} * dim + d + 4 * q, sums[r][q]);
}

// kRows query rows from `row` on against all keys of a chunk.
template <int kRows>
void attend_rows(const QueryRows& rows, const KeyBlocks& blocks, const KeyRange* ranges, int row) {
    float scores[kRows][kKeyChunk];
    const int dim = rows.head_dim;
    for (int b = 0; b < blocks.num_blocks; ++b)
        score_block<kRows>(rows.queries + int64_t{row} * dim, blocks.keys[b], dim, scores, b * kBlockSize);
    for (int r = 0; r < kRows; ++r) softmax_numerators(scores[r], ranges[row + r], rows, row + r);
    for (int d = 0; d < dim; d += 4 * kRegisters) weigh_values<kRows>(scores, blocks, d, dim, rows.out + int64_t{row} * dim);
}

void attend(const QueryRows& rows, const KeyBlocks& blocks, const KeyRange* ranges) {
    int row = 0;
    for (; row + 4 <= rows.num_rows; row += 4) attend_rows<4>(rows, blocks, ranges, row);
    for (; row < rows.num_rows; ++row) attend_rows<1>(rows, blocks, ranges, row);
}

}  // namespace
}  // namespace gemma3::GEMMA3_ISA
