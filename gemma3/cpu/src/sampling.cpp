#include "sampling.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

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
double find_log_mass(Logits row) {
    std::vector<Mass> chunks;
    for (int first = 0; first < row.size; first += kChunk)
        chunks.push_back(mass_of({row.values + first, nullptr, std::min(kChunk, row.size - first)}));
    return log_mass_of(chunks.data(), int(chunks.size()));
}

std::vector<std::pair<int32_t, float>> logprobs_of(const std::vector<int32_t>& ids, const float* logits, double log_mass) {
    std::vector<std::pair<int32_t, float>> logprobs;
    logprobs.reserve(ids.size());
    for (const int32_t id : ids) logprobs.emplace_back(id, logprob_of(logits[id], log_mass));
    return logprobs;
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

std::vector<std::pair<int32_t, float>> likeliest(Logits row, int count, double log_mass, SamplingScratch& scratch) {
    find_peak(row, scratch);
    const Logits largest = gather_largest(row, count, scratch);
    auto& ordered = scratch.ordered;
    ordered.clear();
    for (int i = 0; i < largest.size; ++i) ordered.emplace_back(largest.id(i), largest.values[i]);
    const auto end = ordered.begin() + std::min(count, largest.size);
    std::partial_sort(ordered.begin(), end, ordered.end(), is_likelier);
    std::vector<std::pair<int32_t, float>> top(ordered.begin(), end);
    for (auto& entry : top) entry.second = logprob_of(entry.second, log_mass);
    return top;
}

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
    const double log_mass = find_log_mass(row);
    auto top = std::isnan(log_mass) ? decltype(Sampled::top)() : reported(row, request, log_mass, scratch);
    Sampled sampled;
    if (request.has_target()) {
        sampled.token_id = request.target;
        sampled.is_finite = !std::isnan(log_mass);
        if (request.wants_rank) sampled.rank = 1 + num_likelier(logits, vocab_size, logits[request.target], request.target);
    } else {
        sampled = adjust_and_choose(logits, row, request, scratch);
    }
    sampled.top = std::move(top);
    if (sampled.token_id >= 0) sampled.logprob = logprob_of(raw_logit(logits, sampled.token_id, scratch), log_mass);
    return sampled;
}

}  // namespace gemma3
