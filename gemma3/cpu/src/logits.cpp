// Compiled with -ffp-contract=off: a * b + c is rounded alike everywhere.
#include "logits.h"

#include <cfloat>
#include <numeric>

#include "wide.h"

namespace gemma3 {
namespace {

constexpr int kLanes = 64;  // partial maxima and sums of a block: fixed here, whatever the vector width

inline double sum(double a, double b) { return a + b; }

// Combines `2 * kHalf` numbers into the first of them, in halves.
template <int kHalf, typename Number, typename Combine>
inline void fold(Number* numbers, const Combine& combine) {
    for (int i = 0; i < kHalf; ++i) numbers[i] = combine(numbers[i], numbers[i + kHalf]);
    if constexpr (kHalf > 1) fold<kHalf / 2>(numbers, combine);
}

}  // namespace

Mass mass_of(Logits chunk) {
    float peaks[kChunk / kBlock];
    double sums[kChunk / kBlock];
    if (find_block_peaks(chunk, peaks)) return {std::numeric_limits<float>::quiet_NaN(), 0};
    const float peak = *std::max_element(peaks, peaks + chunk.num_blocks());
    find_block_masses(chunk, {peak, kLog2E}, sums);
    return {peak, std::accumulate(sums, sums + chunk.num_blocks(), 0.0)};
}

double log_mass_of(const Mass* chunks, int count) {
    float peak = -kInfinity;
    for (int i = 0; i < count && !std::isnan(peak); ++i) peak = std::isnan(chunks[i].peak) ? chunks[i].peak : larger(chunks[i].peak, peak);
    if (!std::isfinite(peak)) return std::numeric_limits<double>::quiet_NaN();
    double sum = 0;
    for (int i = 0; i < count; ++i) sum += chunks[i].sum * std::exp(static_cast<double>(chunks[i].peak) - static_cast<double>(peak));
    return static_cast<double>(peak) + std::log(sum);
}

GEMMA3_WIDE void find_panel_peaks(const float* logits, int num_panels, float* peaks) {
    for (int panel = 0; panel < num_panels; ++panel, logits += kPanel) {
        alignas(64) float highest[kPanel];
        uint32_t nan = 0;
        for (int i = 0; i < kPanel; ++i) nan |= logits[i] != logits[i];
        std::copy_n(logits, kPanel, highest);
        fold<kPanel / 2>(highest, larger);
        peaks[panel] = nan ? kInfinity : highest[0];
    }
}

GEMMA3_WIDE int num_likelier(const float* logits, int count, float logit, int place) {
    const int end = std::clamp(place, 0, count);
    int num = 0;
    for (int i = 0; i < end; ++i) num += logits[i] >= logit ? 1 : 0;
    for (int i = end; i < count; ++i) num += logits[i] > logit ? 1 : 0;
    return num;
}

GEMMA3_WIDE bool find_block_peaks(Logits row, float* block_peaks) {
    alignas(64) float padded[kBlock], peaks[kLanes];
    alignas(64) uint32_t nan[kLanes] = {};
    for (int b = 0; b < row.num_blocks(); ++b) {
        const float* x = row.block(b, padded);
        for (int i = 0; i < kLanes; ++i) {
            const float x0 = x[i], x1 = x[i + kLanes], x2 = x[i + 2 * kLanes], x3 = x[i + 3 * kLanes];
            peaks[i] = larger(larger(x0, x1), larger(x2, x3));
            nan[i] |= (x0 != x0) | (x1 != x1) | (x2 != x2) | (x3 != x3);
        }
        fold<kLanes / 2>(peaks, larger);
        block_peaks[b] = peaks[0];
    }
    return std::any_of(nan, nan + kLanes, [](uint32_t found) { return found != 0; });
}

GEMMA3_WIDE float lowest_finite(Logits row) {
    alignas(64) float padded[kBlock], lowest[kLanes];
    std::fill(lowest, lowest + kLanes, FLT_MAX);
    for (int b = 0; b < row.num_blocks(); ++b) {
        const float* x = row.block(b, padded);
        for (int first = 0; first < kBlock; first += kLanes) {
            for (int i = 0; i < kLanes; ++i) {
                const float value = x[first + i];
                lowest[i] = smaller(value >= -FLT_MAX ? value : FLT_MAX, lowest[i]);
            }
        }
    }
    fold<kLanes / 2>(lowest, smaller);
    return lowest[0];
}

GEMMA3_WIDE void find_block_masses(Logits row, Distribution distribution, double* block_masses) {
    alignas(64) float padded[kBlock], weights[kBlock];
    alignas(64) double sums[kLanes];
    for (int b = 0; b < row.num_blocks(); ++b) {
        const float* x = row.block(b, padded);
        for (int i = 0; i < kBlock; ++i) weights[i] = distribution.weight(x[i]);
        for (int i = 0; i < kLanes; ++i) {
            const double w0 = weights[i], w1 = weights[i + kLanes];
            const double w2 = weights[i + 2 * kLanes], w3 = weights[i + 3 * kLanes];
            sums[i] = (w0 + w1) + (w2 + w3);
        }
        fold<kLanes / 2>(sums, sum);
        block_masses[b] = sums[0];
    }
}

GEMMA3_WIDE void find_bin_masses(Logits row, Bins bins, Distribution distribution, double* bin_masses) {
    alignas(64) float padded[kBlock], weights[kBlock];
    alignas(64) int indices[kBlock];
    for (int b = 0; b < row.num_blocks(); ++b) {
        const float* x = row.block(b, padded);
        for (int i = 0; i < kBlock; ++i) weights[i] = distribution.weight(x[i]);
        for (int i = 0; i < kBlock; ++i) indices[i] = bins.of(x[i]);
        for (int i = 0; i < kBlock; ++i) bin_masses[indices[i]] += static_cast<double>(weights[i]);
    }
}

}  // namespace gemma3
