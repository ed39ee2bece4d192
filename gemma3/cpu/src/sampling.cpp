// The vocabulary is never sorted: it is read in blocks, whose maxima and sums tell where to look closer, and top_k,
// top_p and min_p gather the few logits that are still in the running into a shorter row.
//
// Compiled with -ffp-contract=off: a * b + c is rounded alike everywhere.
#include "sampling.h"

#include <algorithm>
#include <cfloat>
#include <climits>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>

#include "kernels/numbers.h"

namespace gemma3 {
namespace {

constexpr int kBlock = 256;  // logits whose maximum and sum are kept
constexpr int kLanes = 64;   // partial maxima and sums of a block: fixed here, whatever the vector width
constexpr int kBins = 2048;  // of the distance to the largest logit
constexpr float kLog2E = 1.44269504f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The loops over the whole vocabulary exist twice where the loader can choose (glibc), and give the same bits.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GLIBC__) && !defined(__clang__)
#define GEMMA3_WIDE __attribute__((target_clones("default", "avx2")))
#else
#define GEMMA3_WIDE
#endif

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

// Logits in the order of their ids: of the whole vocabulary (`ids` is null), or of those still in the running.
struct Logits {
    const float* values;
    const int32_t* ids;
    int size;

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

inline float larger(float a, float b) { return a > b ? a : b; }
inline float smaller(float a, float b) { return a < b ? a : b; }
inline double sum(double a, double b) { return a + b; }

// Combines `2 * kHalf` numbers into the first of them, in halves.
template <int kHalf, typename Number, typename Combine>
inline void fold(Number* numbers, const Combine& combine) {
    for (int i = 0; i < kHalf; ++i) numbers[i] = combine(numbers[i], numbers[i + kHalf]);
    if constexpr (kHalf > 1) fold<kHalf / 2>(numbers, combine);
}

// True if there is a NaN, which no peak shows.
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

// Bins grow with the distance to the peak; rounding keeps the order.
struct Bins {
    float peak;
    float per_logit;

    int of(float logit) const { return static_cast<int>(smaller((peak - logit) * per_logit, kBins - 1)); }
};

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

struct Peak {
    float logit;
    bool is_finite;
};

// Fills `block_peaks`.
Peak find_peak(Logits row, SamplingScratch& scratch) {
    scratch.block_peaks.resize(static_cast<size_t>(row.num_blocks()));
    const bool has_nan = find_block_peaks(row, scratch.block_peaks.data());
    const float peak = *std::max_element(scratch.block_peaks.begin(), scratch.block_peaks.end());
    return {peak, !has_nan && std::isfinite(peak)};
}

int32_t first_at_peak(Logits row, float peak, const SamplingScratch& scratch) {
    const auto block = std::find(scratch.block_peaks.begin(), scratch.block_peaks.end(), peak);
    const float* first = row.values + (block - scratch.block_peaks.begin()) * kBlock;
    return row.id(static_cast<int>(std::find(first, row.values + row.size, peak) - row.values));
}

// Fills `block_masses` and returns their sum.
double find_mass(Logits row, const Distribution& distribution, SamplingScratch& scratch) {
    scratch.block_masses.resize(static_cast<size_t>(row.num_blocks()));
    find_block_masses(row, distribution, scratch.block_masses.data());
    double total = 0;
    for (const double mass : scratch.block_masses) total += mass;
    return total;
}

// Adds those of a block that `wanted` takes to the `count` gathered ones, without branching on it. The row may lie in
// `scratch` itself, since no more is written than was read.
template <typename Wanted>
int gather_block(Logits row, int b, const Wanted& wanted, int count, SamplingScratch& scratch) {
    const int begin = b * kBlock, end = std::min(begin + kBlock, row.size);
    const size_t needed = static_cast<size_t>(count + end - begin);
    if (scratch.values.size() < needed) {
        scratch.values.resize(2 * needed);
        scratch.ids.resize(2 * needed);
    }
    float* values = scratch.values.data();
    int32_t* ids = scratch.ids.data();
    for (int i = begin; i < end; ++i) {
        const float value = row.values[i];
        const int32_t id = row.id(i);
        values[count] = value;
        ids[count] = id;
        count += wanted(value, id) ? 1 : 0;
    }
    return count;
}

Logits gathered(int count, const SamplingScratch& scratch) { return {scratch.values.data(), scratch.ids.data(), count}; }

// Logits from `bound` up; -inf is not among them. If `row` is the vocabulary, its `block_peaks` must be known.
Logits gather_from(Logits row, float bound, SamplingScratch& scratch) {
    bound = std::max(bound, -FLT_MAX);
    int count = 0;
    for (int b = 0; b < row.num_blocks(); ++b) {
        if (!row.ids && scratch.block_peaks[static_cast<size_t>(b)] < bound) continue;
        count = gather_block(row, b, [&](float value, int32_t) { return value >= bound; }, count, scratch);
    }
    return gathered(count, scratch);
}

// The logits of `ids`, which are in rising order.
Logits gather_ids(Logits row, const std::vector<int32_t>& ids, SamplingScratch& scratch) {
    scratch.ids = ids;
    scratch.values.resize(ids.size());
    for (size_t i = 0; i < ids.size(); ++i) scratch.values[i] = row.values[ids[i]];
    return gathered(static_cast<int>(ids.size()), scratch);
}

// At least the `count` >= 1 largest logits above -inf, and few more unless `count` is large.
Logits gather_largest(Logits row, int count, SamplingScratch& scratch) {
    if (count > row.num_blocks()) return gather_from(row, -kInfinity, scratch);
    // As many blocks have one at least as large, so the count-th largest is no smaller.
    auto& peaks = scratch.ordered_peaks;
    peaks = scratch.block_peaks;
    std::nth_element(peaks.begin(), peaks.begin() + (count - 1), peaks.end(), std::greater<float>());
    return gather_from(row, peaks[static_cast<size_t>(count - 1)], scratch);
}

bool is_likelier(const std::pair<int32_t, float>& a, const std::pair<int32_t, float>& b) {
    return a.second > b.second || (a.second == b.second && a.first < b.first);
}

// Ids and logits of one bin, likeliest first.
void order_bin(Logits row, const Bins& bins, int bin, SamplingScratch& scratch) {
    scratch.ordered.clear();
    for (int i = 0; i < row.size; ++i) {
        if (bins.of(row.values[i]) == bin) scratch.ordered.emplace_back(row.id(i), row.values[i]);
    }
    std::sort(scratch.ordered.begin(), scratch.ordered.end(), is_likelier);
}

// The unlikeliest (id, logit) that stays when, likeliest first, tokens stay while those before them weigh less than
// `limit`; the first always does. Only the bin in which it lies is sorted.
std::pair<int32_t, float> find_last(Logits row, double limit, const Distribution& distribution, SamplingScratch& scratch) {
    const float range = larger(distribution.peak - lowest_finite(row), FLT_MIN);
    const Bins bins{distribution.peak, smaller(kBins / range, FLT_MAX)};
    scratch.bin_masses.assign(kBins, 0.0);
    find_bin_masses(row, bins, distribution, scratch.bin_masses.data());
    double before = 0;
    int bin = 0;
    for (; bin < kBins && before + scratch.bin_masses[static_cast<size_t>(bin)] < limit; ++bin) {
        before += scratch.bin_masses[static_cast<size_t>(bin)];
    }
    if (bin == kBins) return {INT_MAX, -kInfinity};
    order_bin(row, bins, bin, scratch);
    std::pair<int32_t, float> last = scratch.ordered[0];
    for (const auto& next : scratch.ordered) {
        if (before >= limit && before > 0) break;
        last = next;
        before += static_cast<double>(distribution.weight(next.second));
    }
    return last;
}

Logits cut(Logits row, double limit, const Distribution& distribution, SamplingScratch& scratch) {
    const std::pair<int32_t, float> last = find_last(row, limit, distribution, scratch);
    const auto stays = [&](float value, int32_t id) { return !is_likelier(last, {id, value}); };
    int count = 0;
    for (int b = 0; b < row.num_blocks(); ++b) count = gather_block(row, b, stays, count, scratch);
    return gathered(count, scratch);
}

Logits keep_top_k(Logits row, int top_k, float peak, SamplingScratch& scratch) {
    if (top_k <= row.num_blocks()) row = gather_largest(row, top_k, scratch);
    return cut(row, top_k, {peak, 0}, scratch);  // every token weighs 1
}

// `row` is the vocabulary, or what `keep_top_k` left of it.
Logits keep_top_p(Logits row, double top_p, const Distribution& distribution, SamplingScratch& scratch) {
    const double total = find_mass(row, distribution, scratch), limit = top_p * total;
    if (row.ids) return cut(row, limit, distribution, scratch);
    // Were all that is cut off below this weight, it could not make up (1 - p) of the total. The cut lies far above it
    // where most tokens weigh nothing, so that is tried first.
    const double low = (1 - top_p) * total / row.size;
    Logits likely{};
    for (const double weight : {64 * low, 8 * low, low, 0.0}) {
        likely = gather_from(row, distribution.logit_of(weight), scratch);
        if (find_mass(likely, distribution, scratch) >= limit) break;
    }
    return cut(likely, limit, distribution, scratch);
}

// The first, in order of id, at which the running sum of weights exceeds u times their sum.
int32_t pick(Logits row, const Distribution& distribution, double uniform, SamplingScratch& scratch) {
    const double wanted = uniform * find_mass(row, distribution, scratch);
    double before = 0, running = 0;
    int block = 0;
    for (int b = 0; b < row.num_blocks() && !(running > wanted); ++b) {
        const double mass = scratch.block_masses[static_cast<size_t>(b)];
        if (mass == 0) continue;
        block = b;
        before = running;
        running += mass;
    }
    int32_t chosen = -1;  // rounding may leave the end of the block or of the row, so then the last that has a weight
    for (int i = block * kBlock; i < std::min((block + 1) * kBlock, row.size) && !(before > wanted); ++i) {
        const float weight = distribution.weight(row.values[i]);
        if (weight == 0) continue;
        chosen = row.id(i);
        before += static_cast<double>(weight);
    }
    return chosen;
}

// Steps 4 to 6 of the definition for a temperature above 0. Needs `block_peaks`.
int32_t draw(Logits row, const RowRequest& request, float peak, SamplingScratch& scratch) {
    // With a temperature near 0 the quotient must still be a number.
    const Distribution distribution{peak, smaller(kLog2E / request.temperature, FLT_MAX)};
    if (request.top_k > 0 && request.top_k < row.size) row = keep_top_k(row, request.top_k, peak, scratch);
    if (request.top_p < 1) row = keep_top_p(row, static_cast<double>(request.top_p), distribution, scratch);
    const double min_p = static_cast<double>(smaller(request.min_p, 1));
    if (min_p > 0) row = gather_from(row, distribution.logit_of(min_p), scratch);
    return pick(row, distribution, request.uniform, scratch);  // the peak weighs 1 and stays whatever is cut off
}

// Steps 2 and 3; remembers what it changes.
void adjust(float* logits, const RowRequest& request, SamplingScratch& scratch) {
    const auto change = [&](int32_t id, float value) {
        scratch.raw_logits.emplace_back(id, logits[id]);
        logits[id] = value;
    };
    for (const int32_t id : request.banned) change(id, -kInfinity);
    if (request.repetition_penalty != 1) {
        for (const int32_t id : request.seen) {
            const float old = logits[id];
            const float value = old > 0 ? old / request.repetition_penalty : old * request.repetition_penalty;
            change(id, std::isfinite(old) ? std::clamp(value, -FLT_MAX, FLT_MAX) : value);
        }
    }
    for (const auto& [id, count] : request.output_counts) {
        const float penalty = request.frequency_penalty * static_cast<float>(count) + request.presence_penalty;
        change(id, logits[id] - penalty);
    }
    for (const auto& [id, bias] : request.logit_bias) change(id, logits[id] + bias);
}

float raw_logit(const float* logits, int32_t id, const SamplingScratch& scratch) {
    for (const auto& [changed_id, raw] : scratch.raw_logits) {
        if (changed_id == id) return raw;
    }
    return logits[id];
}

// A log probability is a logit less this.
double find_log_mass(Logits row, Peak peak, SamplingScratch& scratch) {
    if (!peak.is_finite) return std::numeric_limits<double>::quiet_NaN();
    return static_cast<double>(peak.logit) + std::log(find_mass(row, {peak.logit, kLog2E}, scratch));
}

std::vector<std::pair<int32_t, float>> likeliest(Logits row, int count, double log_mass, SamplingScratch& scratch) {
    const Logits largest = gather_largest(row, count, scratch);
    auto& ordered = scratch.ordered;
    ordered.clear();
    for (int i = 0; i < largest.size; ++i) ordered.emplace_back(largest.id(i), largest.values[i]);
    const auto end = ordered.begin() + std::min(count, largest.size);
    std::partial_sort(ordered.begin(), end, ordered.end(), is_likelier);
    std::vector<std::pair<int32_t, float>> top(ordered.begin(), end);
    for (auto& entry : top) entry.second = static_cast<float>(static_cast<double>(entry.second) - log_mass);
    return top;
}

std::vector<std::pair<int32_t, float>> logprobs_of(const std::vector<int32_t>& ids, const float* logits, double log_mass) {
    std::vector<std::pair<int32_t, float>> logprobs;
    logprobs.reserve(ids.size());
    for (const int32_t id : ids) logprobs.emplace_back(id, static_cast<float>(static_cast<double>(logits[id]) - log_mass));
    return logprobs;
}

// How many logits stand before that of `id` in the order of likelihood, and 1.
GEMMA3_WIDE int32_t rank_of(const float* logits, int vocab_size, int32_t id) {
    const float logit = logits[id];
    int32_t rank = 1;
    for (int i = 0; i < id; ++i) rank += logits[i] >= logit ? 1 : 0;
    for (int i = id + 1; i < vocab_size; ++i) rank += logits[i] > logit ? 1 : 0;
    return rank;
}

void check_id(const char* field, int32_t id, int vocab_size) {
    if (id >= 0 && id < vocab_size) return;
    throw std::invalid_argument(std::string(field) + "=" + std::to_string(id) + " is not allowed: an id from 0 to " +
                                std::to_string(vocab_size - 1) + ".");
}

}  // namespace

bool RowRequest::adjusts() const {
    const bool repeats = repetition_penalty != 1 && !seen.empty();
    const bool counts = (frequency_penalty != 0 || presence_penalty != 0) && !output_counts.empty();
    return repeats || counts || !logit_bias.empty() || !banned.empty() || !allowed.empty();
}

bool RowRequest::is_plain_greedy() const {
    return !(temperature > 0) && !adjusts() && num_logprobs < 0 && target < 0;
}

void RowRequest::validate(int vocab_size) const {
    for (const int32_t id : seen) check_id("seen", id, vocab_size);
    for (const auto& [id, count] : output_counts) check_id("output_counts", id, vocab_size);
    for (const auto& [id, bias] : logit_bias) check_id("logit_bias", id, vocab_size);
    for (const int32_t id : banned) check_id("banned", id, vocab_size);
    for (const int32_t id : allowed) check_id("allowed", id, vocab_size);
    for (const int32_t id : reported) check_id("reported", id, vocab_size);
    if (target >= 0) check_id("target", target, vocab_size);
    // Strictly rising: a draw goes through them in the order of ids, and no id may count twice.
    if (std::adjacent_find(allowed.begin(), allowed.end(), std::greater_equal<int32_t>()) != allowed.end())
        throw std::invalid_argument("allowed is not in rising order.");
}

Sampled sample(float* logits, int vocab_size, const RowRequest& request, SamplingScratch& scratch) {
    Logits row{logits, nullptr, vocab_size};
    const bool has_target = request.target >= 0, reports = has_target || request.num_logprobs >= 0;
    const bool adjusts = !has_target && request.adjusts();
    Sampled sampled;
    Peak peak{};
    double log_mass = 0;
    scratch.raw_logits.clear();
    if (reports || !adjusts) peak = find_peak(row, scratch);
    if (reports) log_mass = find_log_mass(row, peak, scratch);
    if (reports && peak.is_finite) {
        if (!request.reported.empty()) {
            sampled.top = logprobs_of(request.reported, logits, log_mass);
        } else if (request.num_logprobs > 0) {
            sampled.top = likeliest(row, request.num_logprobs, log_mass, scratch);
        }
    }
    if (has_target && request.wants_rank) sampled.rank = rank_of(logits, vocab_size, request.target);
    if (adjusts) {
        adjust(logits, request, scratch);
        if (!request.allowed.empty()) row = gather_ids(row, request.allowed, scratch);
        peak = find_peak(row, scratch);
    }
    sampled.is_finite = peak.is_finite;
    if (has_target) {
        sampled.token_id = request.target;
    } else if (peak.is_finite) {
        sampled.token_id = request.temperature > 0 ? draw(row, request, peak.logit, scratch)
                                                   : first_at_peak(row, peak.logit, scratch);
    }
    if (reports && sampled.token_id >= 0) {
        const double logit = static_cast<double>(raw_logit(logits, sampled.token_id, scratch));
        sampled.logprob = static_cast<float>(logit - log_mass);
    }
    return sampled;
}

}  // namespace gemma3
