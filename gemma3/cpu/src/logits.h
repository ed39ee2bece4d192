// Rows of logits, and the loops over all of a row.
//
// A row is read in blocks, whose maxima and sums tell where to look closer. What a loop gives depends on the row alone, bit
// for bit: not on the instruction set or vector width.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/numbers.h"
#include "kernels/panels.h"

namespace gemma3 {

constexpr int kBlock = 256;  // logits whose maximum and sum are kept
constexpr int kChunk = 4 * kBlock;  // logits whose weights are summed by themselves
constexpr int kBins = 2048;  // of the distance to the largest logit
constexpr float kLog2E = 1.44269504f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

inline float larger(float a, float b) { return a > b ? a : b; }
inline float smaller(float a, float b) { return a < b ? a : b; }

inline uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline float float_of(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// 2^x for x <= 0, within 1.3 ulp; 0 for NaN and below -126, where floats are no longer normal.
inline float exp2_of_negative(float x) {
    const float shifted = x + kRounder;
    const float r = x - (shifted - kRounder);  // exact, from -1/2 to 1/2
    float p = 1.5353362e-4f;                   // 1 + r p(r) is 2^r within 2^-25: a minimax fit
    p = p * r + 1.3398874e-3f;
    p = p * r + 9.618437e-3f;
    p = p * r + 5.5503324e-2f;
    p = p * r + 2.4022648e-1f;
    p = p * r + 6.931472e-1f;
    const float power = float_of((bits_of(shifted) << 23) + bits_of(1.0f));
    const float result = (p * r + 1.0f) * power;
    return x >= -126.0f ? result : 0.0f;
}

// Logits in the order of their ids: of the whole vocabulary (`ids` is null), of those that are allowed, or, once some are cut
// off, of those still in the running.
struct Logits {
    const float* values;
    const int32_t* ids;
    int size;
    bool is_cut = false;

    int num_blocks() const { return (size + kBlock - 1) / kBlock; }
    int32_t id(int index) const { return ids ? ids[index] : index; }

    // The values of a block; the last is filled up in `padded` with what nothing ever chooses.
    const float* block(int b, float* padded) const {
        const float* first = values + int64_t{b} * kBlock;
        const int count = size - b * kBlock;
        if (count >= kBlock) return first;
        std::fill(std::copy(first, first + count, padded), padded + kBlock, -kInfinity);
        return padded;
    }
};

// Weights in proportion to the probabilities: 1 for the likeliest token.
struct Distribution {
    float peak;
    float sharpness;  // log2(e) / temperature; 0 lets every token weigh 1, and -inf 0

    float weight(float logit) const { return exp2_of_negative((logit - peak) * sharpness); }
    // The least logit of at least this weight.
    float logit_of(double weight) const {
        return static_cast<float>(peak + std::log2(weight) / static_cast<double>(sharpness));
    }
};

// Bins grow with the distance to the peak; rounding keeps the order.
struct Bins {
    float peak;
    float per_logit;

    int of(float logit) const { return static_cast<int>(smaller((peak - logit) * per_logit, kBins - 1)); }
};

// The largest of some logits, NaN if one is, and the sum of e^(logit - peak).
struct Mass {
    float peak;
    double sum;
};

// Of at most kChunk logits.
Mass mass_of(Logits chunk);
// The log of the sum of e^logit over chunks, in their order; NaN if a logit is, or the largest is infinite.
double log_mass_of(const Mass* chunks, int count);
// The largest of each panel; +inf if one of them is NaN.
void find_panel_peaks(const float* logits, int num_panels, float* peaks);
// How many of `count` logits stand before one in the order of likelihood that has this place among them, or one before or behind.
int num_likelier(const float* logits, int count, float logit, int place);

// The largest of each block. True if there is a NaN, which no peak shows.
bool find_block_peaks(Logits row, float* block_peaks);
float lowest_finite(Logits row);
// The sum of the weights of each block.
void find_block_masses(Logits row, Distribution distribution, double* block_masses);
// Adds the weights of each bin.
void find_bin_masses(Logits row, Bins bins, Distribution distribution, double* bin_masses);

}  // namespace gemma3
