#include "sampling.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "wide.h"

namespace gemma3 {
namespace {

// Steps 2 and 3, but for the mask: `find(id)` is where a logit lies, null if nobody can choose the id.
template <typename Find>
void adjust(const RowRequest& request, const Find& find) {
    const auto change = [&](int32_t id, const auto& changed) {
        if (float* logit = find(id)) *logit = changed(*logit);
    };
    for (const int32_t id : request.banned) change(id, [](float) { return -kInfinity; });
    if (request.repetition_penalty != 1) {
        const auto penalised = [&](float old) {
            const float value = old > 0 ? old / request.repetition_penalty : old * request.repetition_penalty;
            return std::isfinite(old) ? std::clamp(value, -FLT_MAX, FLT_MAX) : value;
        };
        for (const int32_t id : request.seen) change(id, penalised);
    }
    for (const auto& [id, count] : request.output_counts) {
        change(id, [penalty = request.penalty(count)](float old) { return old - penalty; });
    }
    for (const auto& [id, bias] : request.logit_bias) change(id, [bias = bias](float old) { return old + bias; });
}

// In place; remembers what it changes.
void adjust_all(float* logits, const RowRequest& request, SamplingScratch& scratch) {
    adjust(request, [&](int32_t id) {
        scratch.raw_logits.emplace_back(id, logits[id]);
        return logits + id;
    });
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

std::vector<std::pair<int32_t, float>> reported(Logits row, const RowRequest& request, double log_mass, SamplingScratch& scratch) {
    if (!request.reported.empty()) return logprobs_of(request.reported, row.values, log_mass);
    if (request.num_logprobs > 0) return likeliest(row, request.num_logprobs, log_mass, scratch);
    return {};
}

// A row that reports no log probability or has reported them already.
Sampled chosen(Logits row, const RowRequest& request, Peak peak, SamplingScratch& scratch) {
    Sampled sampled;
    sampled.is_finite = peak.is_finite;
    if (peak.is_finite) sampled.token_id = choose(row, request, peak.logit, scratch);
    return sampled;
}

void gather_allowed(const float* logits, const TokenMask& mask, AllowedLogits& allowed) {
    allowed.begin(mask.num_ids());
    mask.for_each_panel([&](int panel, uint32_t bits) { allowed.add(panel, bits, logits + panel * kPanel); });
}

Sampled adjust_and_choose(float* logits, Logits row, const RowRequest& request, SamplingScratch& scratch) {
    if (request.allowed.restricts()) {
        gather_allowed(logits, request.allowed, scratch.allowed);
        adjust_allowed(request, scratch.allowed);
        return choose_allowed(request, scratch);
    }
    adjust_all(logits, request, scratch);
    return chosen(row, request, find_peak(row, scratch), scratch);
}

}  // namespace

void adjust_allowed(const RowRequest& request, AllowedLogits& allowed) {
    adjust(request, [&](int32_t id) { return allowed.find(id); });
}

Sampled choose_allowed(const RowRequest& request, SamplingScratch& scratch) {
    const Logits row = scratch.allowed.row();
    return chosen(row, request, find_peak(row, scratch), scratch);
}

Sampled sample(float* logits, int vocab_size, const RowRequest& request, SamplingScratch& scratch) {
    const Logits row{logits, nullptr, vocab_size};
    scratch.raw_logits.clear();
    if (!request.reports()) return adjust_and_choose(logits, row, request, scratch);
    const Peak peak = find_peak(row, scratch);
    const double log_mass = find_log_mass(row, peak, scratch);
    auto top = peak.is_finite ? reported(row, request, log_mass, scratch) : decltype(Sampled::top)();
    Sampled sampled;
    if (request.has_target()) {
        sampled.token_id = request.target;
        sampled.is_finite = peak.is_finite;
        if (request.wants_rank) sampled.rank = rank_of(logits, vocab_size, request.target);
    } else if (request.adjusts() || request.allowed.restricts()) {
        sampled = adjust_and_choose(logits, row, request, scratch);
    } else {
        sampled = chosen(row, request, peak, scratch);
    }
    sampled.top = std::move(top);
    if (sampled.token_id >= 0) {
        const double logit = static_cast<double>(raw_logit(logits, sampled.token_id, scratch));
        sampled.logprob = static_cast<float>(logit - log_mass);
    }
    return sampled;
}

}  // namespace gemma3
