#include "head.h"

#include <algorithm>
#include <cmath>

namespace gemma3 {
namespace {

constexpr int kChunkPanels = 64;         // handed out at a time: 320 KiB of each plane
constexpr int kRowsAtOnce = 32;          // whose logits lie in memory together
constexpr float kLowCentre = 7.5f;       // mean of a low nibble
constexpr float kLowDeviation = 4.6098f; // sqrt((16 * 16 - 1) / 12)
constexpr float kDeviations = 8.0f;

// sum(low * a) lies within centre +- margin, less the offset of the bytes.
struct LowPlaneShare {
    float centre, margin;
};

LowPlaneShare low_plane_share(const Activations& in, int row) {
    int64_t squares = 0;
    const int8_t* values = in.values + int64_t{row} * in.num_inputs;
    for (int i = 0; i < in.num_inputs; ++i) squares += values[i] * values[i];
    const float sum = static_cast<float>(in.sums[row]);
    return {(kLowCentre - 128.0f) * sum, kDeviations * kLowDeviation * std::sqrt(static_cast<float>(squares))};
}

// Sums of ids that cannot be chosen, below those of all that can: 15 * 127 for each input.
constexpr int32_t kHidden = -(1 << 28);

// Takes the ids of a panel whose bits are not set out of the running.
void hide(uint32_t bits, int32_t* sums) {
    if (bits == TokenMask::kWhole) return;
    for (int i = 0; i < kPanel; ++i) sums[i] = bits & 1u << i ? sums[i] : kHidden;
}

// Copy row `from` of `in` to row `to` of `out`.
void copy_row(const Activations& in, int from, Activations& out, int to) {
    const int groups = in.num_inputs / kGroup;
    std::copy_n(in.values + int64_t{from} * in.num_inputs, in.num_inputs, out.values + int64_t{to} * in.num_inputs);
    std::copy_n(in.group_sums + int64_t{from} * groups, groups, out.group_sums + int64_t{to} * groups);
    out.scales[to] = in.scales[from];
    out.sums[to] = in.sums[from];
}

}  // namespace

Head::Head(const Kernels& kernels, Embedding embedding, int num_threads)
    : kernels_(kernels),
      embedding_(embedding),
      masked_head_(kernels, embedding, num_threads),
      num_chunks_((embedding.num_panels() + kChunkPanels - 1) / kChunkPanels),
      scratch_(size_t(num_threads)) {
    for (Scratch& scratch : scratch_) {
        scratch.bytes.reserve(std::max(joined_bytes(embedding), int64_t{kChunkPanels} * kPanel * embedding.high.num_inputs));
    }
}

void Head::begin(const Activations& in, const std::vector<RowRequest>& requests) {
    requests_ = &requests;
    results_.assign(requests.size(), Sampled());
    for (std::vector<int>* rows : {&greedy_, &full_, &masked_}) rows->clear();
    for (size_t i = 0; i < requests.size(); ++i) {
        const RowRequest& request = requests[i];
        (masked_head_.takes(request, int(requests.size())) ? masked_ : request.is_plain_greedy() ? greedy_ : full_).push_back(int(i));
    }
    masked_head_.begin(in, requests, masked_);
    greedy_in_ = greedy_rows_.of(int(greedy_.size()), in.num_inputs);
    full_in_ = full_rows_.of(int(full_.size()), in.num_inputs);
    for (size_t i = 0; i < greedy_.size(); ++i) copy_row(in, greedy_[i], greedy_in_, int(i));
    for (size_t i = 0; i < full_.size(); ++i) copy_row(in, full_[i], full_in_, int(i));
    upper_bounds_.reserve(int64_t(greedy_.size()) * embedding_.num_panels());
    // All memory of the items, which must not throw.
    found_.resize(std::max(found_.size(), greedy_.size()));
    for (size_t i = 0; i < greedy_.size(); ++i) found_[i].reserve(size_t(embedding_.num_panels()));
    candidates_.reserve(greedy_.size() * size_t(embedding_.num_panels()));
    best_.assign(greedy_.size(), Best{-INFINITY, -1});
    for (Scratch& scratch : scratch_) scratch.sums.reserve(int64_t(greedy_.size()) * kChunkPanels * kPanel);
    logits_.reserve(std::min<int64_t>(int64_t(full_.size()), kRowsAtOnce) * padded_vocab());
}

void Head::run(ThreadTeam& team, int thread) {
    if (!masked_.empty()) masked_head_.run(team, thread, results_);
    if (!greedy_.empty()) choose_greedily(team, thread);
    for (int first = 0; first < int(full_.size()); first += kRowsAtOnce) {
        const Activations rows = full_in_.slice(first, std::min(kRowsAtOnce, int(full_.size()) - first));
        all_logits(team, thread, rows, logits_.data(), padded_vocab());
        team.for_each(rows.num_rows, [&](int i) {
            const int row = full_[size_t(first + i)];
            results_[size_t(row)] = sample(logits_.data() + i * padded_vocab(), embedding_.vocab_size,
                                           (*requests_)[size_t(row)], scratch_[size_t(thread)].sampling);
        });
    }
}

void Head::all_logits(ThreadTeam& team, int thread, const Activations& in, float* out, int64_t stride) {
    team.for_each(num_chunks_, [&](int chunk) {
        const int first = chunk * kChunkPanels, last = std::min(first + kChunkPanels, embedding_.num_panels());
        exact_logits(kernels_, embedding_, in, first, last, out + first * kPanel, stride, scratch_[size_t(thread)].bytes);
    });
}

void Head::choose_greedily(ThreadTeam& team, int thread) {
    Scratch& scratch = scratch_[size_t(thread)];
    team.for_each(num_chunks_, [&](int chunk) { bound_chunk(chunk, scratch); });
    team.for_each_and_last(greedy_in_.num_rows, [&](int row) { find_candidates(row, scratch); }, [&] { join_candidates(); });
    team.for_each_and_last(int(candidates_.size()), [&](int i) { score(candidates_[size_t(i)], scratch); }, [&] { take_best(); });
}

void Head::bound_chunk(int chunk, Scratch& scratch) {
    const int first = chunk * kChunkPanels, last = std::min(first + kChunkPanels, embedding_.num_panels());
    const int width = (last - first) * kPanel;
    int32_t* sums = scratch.sums.data();
    kernels_.matmul_nibbles(embedding_.high, greedy_in_, first, last, sums, width, scratch.bytes.data());
    for (int row = 0; row < greedy_in_.num_rows; ++row, sums += width) {
        if (const TokenMask& allowed = request_of(row).allowed; allowed.restricts())
            for (int panel = first; panel < last; ++panel) hide(allowed.of_panel(panel), sums + (panel - first) * kPanel);
        const LowPlaneShare low = low_plane_share(greedy_in_, row);
        kernels_.bound_logits(sums, embedding_.scales + first * kPanel, last - first, greedy_in_.scales[row], low.centre + low.margin,
                              upper_bounds_.data() + int64_t{row} * embedding_.num_panels() + first);
    }
}

// The panel with the highest bound sets the bar: its best exact logit. Usually a few dozen panels reach over it.
void Head::find_candidates(int row, Scratch& scratch) {
    std::vector<Candidate>& found = found_[size_t(row)];
    const int num_panels = embedding_.num_panels();
    const float* upper = upper_bounds_.data() + int64_t{row} * num_panels;
    Candidate highest{row, int(std::max_element(upper, upper + num_panels) - upper), {-INFINITY, -1}};
    score(highest, scratch);
    found.clear();
    for (int panel = 0; panel < num_panels; ++panel)
        if (upper[panel] >= highest.best.logit) found.push_back({row, panel, {-INFINITY, -1}});
}

void Head::join_candidates() {
    candidates_.clear();
    for (int row = 0; row < greedy_in_.num_rows; ++row)
        candidates_.insert(candidates_.end(), found_[size_t(row)].begin(), found_[size_t(row)].end());
}

void Head::score(Candidate& candidate, Scratch& scratch) const {
    const int first_id = candidate.panel * kPanel;
    const TokenMask& allowed = request_of(candidate.row).allowed;
    const uint32_t bits = allowed.restricts() ? allowed.of_panel(candidate.panel) : TokenMask::kWhole;
    float logits[kPanel];
    exact_logits(kernels_, embedding_, greedy_in_.slice(candidate.row, 1), candidate.panel, candidate.panel + 1, logits, kPanel,
                 scratch.bytes);
    for (int i = 0; i < std::min(kPanel, embedding_.vocab_size - first_id); ++i)
        if (bits & 1u << i && logits[i] > candidate.best.logit) candidate.best = {logits[i], first_id + i};
}

void Head::take_best() {
    for (const Candidate& candidate : candidates_)  // in order of id, so that the lowest wins a tie
        if (candidate.best.logit > best_[size_t(candidate.row)].logit) best_[size_t(candidate.row)] = candidate.best;
    for (size_t i = 0; i < greedy_.size(); ++i) {
        Sampled& result = results_[size_t(greedy_[i])];
        result.token_id = best_[i].token_id;
        result.is_finite = best_[i].token_id >= 0 && std::isfinite(best_[i].logit);
    }
}

}  // namespace gemma3
