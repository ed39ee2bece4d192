// The vocabulary is never sorted: blocks' maxima and sums tell where to look closer, and top_k, top_p and min_p gather the few
// logits that are still in the running into a shorter row.
#include "candidates.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <climits>
#include <functional>
#include <iterator>

namespace gemma3 {

void AllowedLogits::begin(int count) {
    const size_t needed = size_t(count) + kPanel;
    if (ids_.size() < needed) {
        values_.resize(needed);
        ids_.resize(needed);
    }
    size_ = 0;
}

void AllowedLogits::add(int panel, uint32_t bits, const float* logits) {
    const int first_id = panel * kPanel, end = bits == TokenMask::kWhole ? kPanel : std::bit_width(bits);
    float* values = values_.data() + size_;
    int32_t* ids = ids_.data() + size_;
    int count = 0;
    for (int i = 0; i < end; ++i) {  // without branching on a bit: there is room for one more
        values[count] = logits[i];
        ids[count] = first_id + i;
        count += bits >> i & 1;
    }
    size_ += count;
}

float* AllowedLogits::find(int32_t id) {
    const auto end = ids_.begin() + size_, found = std::lower_bound(ids_.begin(), end, id);
    return found != end && *found == id ? values_.data() + (found - ids_.begin()) : nullptr;
}

float nth_largest(Logits row, int count, std::vector<float>& values) {
    values.clear();
    std::copy_if(row.values, row.values + row.size, std::back_inserter(values), [](float value) { return value > -kInfinity; });
    if (count > int(values.size())) return -kInfinity;
    std::nth_element(values.begin(), values.begin() + (count - 1), values.end(), std::greater<float>());
    return values[size_t(count - 1)];
}

Peak find_peak(Logits row, SamplingScratch& scratch) {
    if (row.size == 0) return {-kInfinity, false};
    scratch.block_peaks.resize(static_cast<size_t>(row.num_blocks()));
    const bool has_nan = find_block_peaks(row, scratch.block_peaks.data());
    const float peak = *std::max_element(scratch.block_peaks.begin(), scratch.block_peaks.end());
    return {peak, !has_nan && std::isfinite(peak)};
}

double find_mass(Logits row, const Distribution& distribution, SamplingScratch& scratch) {
    scratch.block_masses.resize(static_cast<size_t>(row.num_blocks()));
    find_block_masses(row, distribution, scratch.block_masses.data());
    double total = 0;
    for (const double mass : scratch.block_masses) total += mass;
    return total;
}

namespace {

int32_t first_at_peak(Logits row, float peak, const SamplingScratch& scratch) {
    const auto block = std::find(scratch.block_peaks.begin(), scratch.block_peaks.end(), peak);
    const float* first = row.values + (block - scratch.block_peaks.begin()) * kBlock;
    return row.id(static_cast<int>(std::find(first, row.values + row.size, peak) - row.values));
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

Logits gathered(int count, const SamplingScratch& scratch) { return {scratch.values.data(), scratch.ids.data(), count, true}; }

// Logits from `bound` up; -inf is not among them. Unless the row is cut already, its `block_peaks` must be known.
Logits gather_from(Logits row, float bound, SamplingScratch& scratch) {
    bound = std::max(bound, -FLT_MAX);
    int count = 0;
    for (int b = 0; b < row.num_blocks(); ++b) {
        if (!row.is_cut && scratch.block_peaks[static_cast<size_t>(b)] < bound) continue;
        count = gather_block(row, b, [&](float value, int32_t) { return value >= bound; }, count, scratch);
    }
    return gathered(count, scratch);
}

}  // namespace

Logits gather_largest(Logits row, int count, SamplingScratch& scratch) {
    if (count > row.num_blocks()) return gather_from(row, -kInfinity, scratch);
    // As many blocks have one at least as large, so the count-th largest is no smaller.
    auto& peaks = scratch.ordered_peaks;
    peaks = scratch.block_peaks;
    std::nth_element(peaks.begin(), peaks.begin() + (count - 1), peaks.end(), std::greater<float>());
    return gather_from(row, peaks[static_cast<size_t>(count - 1)], scratch);
}

namespace {

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
    return cut(gather_largest(row, top_k, scratch), top_k, {peak, 0}, scratch);  // every token weighs 1
}

Logits keep_top_p(Logits row, double top_p, const Distribution& distribution, SamplingScratch& scratch) {
    const double total = find_mass(row, distribution, scratch), limit = top_p * total;
    if (row.is_cut) return cut(row, limit, distribution, scratch);
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

// For a temperature above 0.
int32_t draw(Logits row, const RowRequest& request, float peak, SamplingScratch& scratch) {
    // With a temperature near 0 the quotient must still be a number.
    const Distribution distribution{peak, smaller(kLog2E / request.temperature, FLT_MAX)};
    if (request.top_k > 0 && request.top_k < row.size) row = keep_top_k(row, request.top_k, peak, scratch);
    if (request.top_p < 1) row = keep_top_p(row, static_cast<double>(request.top_p), distribution, scratch);
    const double min_p = static_cast<double>(smaller(request.min_p, 1));
    if (min_p > 0) row = gather_from(row, distribution.logit_of(min_p), scratch);
    return pick(row, distribution, request.uniform, scratch);  // the peak weighs 1 and stays whatever is cut off
}

}  // namespace

int32_t choose(Logits row, const RowRequest& request, float peak, SamplingScratch& scratch) {
    return request.temperature > 0 ? draw(row, request, peak, scratch) : first_at_peak(row, peak, scratch);
}

}  // namespace gemma3
