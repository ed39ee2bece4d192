#include "panel_head.h"

#include <algorithm>
#include <cmath>

namespace gemma3 {

PanelHead::PanelHead(const Kernels& kernels, const Embedding& embedding, int num_threads)
    : kernels_(kernels),
      embedding_(embedding),
      bounds_(kernels, embedding, num_threads),
      reader_(kernels, embedding, num_threads),
      scratch_(size_t(num_threads)) {
    for (Scratch& scratch : scratch_) scratch.bytes.reserve(joined_bytes(embedding));
}

void PanelHead::begin(const Activations& in, const std::vector<RowRequest>& requests, const std::vector<RowPath>& paths) {
    in_ = in;
    num_rows_ = 0;
    is_chosen_by_bounds_ = false;
    std::vector<int> bounded, read;
    for (int i = 0; i < int(requests.size()); ++i) {
        const RowPath path = paths[size_t(i)];
        if (path == RowPath::kKept) continue;
        std::vector<int>& alike = path == RowPath::kBounded ? bounded : read;
        add(requests[size_t(i)], i, path, int(alike.size()));
        if (path != RowPath::kMasked) alike.push_back(i);
    }
    bounds_.begin(in, bounded);
    reader_.begin(in, requests, read);
    left_.clear();
    left_.reserve(size_t(num_rows_));
    // Memory that nobody writes is not taken from the system.
    const int most_panels = std::min(embedding_.num_panels(), kMostPanels);
    logits_.reserve(std::min(int64_t{num_rows_} * most_panels, int64_t{kMostPanelsOfStep}) * kPanel);
    for (Scratch& scratch : scratch_) {
        scratch.next.resize(size_t(num_rows_));
        scratch.numbers.reserve(size_t(num_rows_));
        scratch.places.reserve(size_t(num_rows_));
        scratch.in.of(num_rows_, in.num_inputs);
        scratch.logits.reserve(int64_t{num_rows_} * kPanel);
    }
}

void PanelHead::add(const RowRequest& request, int number, RowPath path, int place) {
    if (num_rows_ == int(rows_.size())) rows_.emplace_back();
    Row& row = rows_[size_t(num_rows_++)];
    row.request = &request;
    row.number = number;
    row.path = path;
    row.place = place;
    row.panels.clear();
    row.is_left = false;
    is_chosen_by_bounds_ |= path == RowPath::kBounded || (path == RowPath::kRead && !request.has_target());
}

const float* PanelHead::bounds_of(const Row& row, Scratch& scratch) const {
    const RowRequest& request = *row.request;
    if (row.path == RowPath::kMasked || request.has_target()) return nullptr;
    const float* bounds = row.path == RowPath::kBounded ? bounds_.row(row.place) : reader_.peaks(row.place);
    if (!request.allowed.restricts()) return bounds;
    scratch.bounds.assign(size_t(embedding_.num_panels()), -kInfinity);
    request.allowed.for_each_panel([&](int panel, uint32_t) { scratch.bounds[size_t(panel)] = bounds[panel]; });
    return scratch.bounds.data();
}

void PanelHead::run(ThreadTeam& team, int thread, std::vector<Sampled>& results) {
    Scratch& scratch = scratch_[size_t(thread)];
    const auto score_chunk = [&](int chunk) { score(chunk, scratch); };
    bounds_.run(team, thread);
    reader_.run(team, thread);
    if (is_chosen_by_bounds_) {
        team.for_each_and_last(num_rows_, [&](int i) { find_likely(rows_[size_t(i)], scratch); }, [&] { place_panels(); });
        team.for_each(embedding_.num_chunks(), score_chunk);
    }
    team.for_each_and_last(num_rows_, [&](int i) { find_all(rows_[size_t(i)], scratch); }, [&] { place_panels(); });
    team.for_each(embedding_.num_chunks(), score_chunk);
    team.for_each(num_rows_, [&](int i) {
        const Row& row = rows_[size_t(i)];
        if (!row.is_left) results[size_t(row.number)] = answer(row, scratch.sampling);
    });
}

// One panel more than ids are wanted, so that sampling sees more ids than it leaves.
void PanelHead::find_likely(Row& row, Scratch& scratch) const {
    const float* bounds = bounds_of(row, scratch);
    if (bounds == nullptr) return;
    const float least = reached_by(bounds, embedding_.num_panels(), row.request->num_best() + 1, scratch.peaks);
    add_panels(bounds, embedding_.num_panels(), least, kMostPanels, row.panels);
}

// The last of the likeliest ids of the panels found so far is no more than the last of the likeliest of all.
void PanelHead::find_all(Row& row, Scratch& scratch) const {
    const RowRequest& request = *row.request;
    if (row.is_left) return;
    size_t num_in_order = 0;
    if (row.path == RowPath::kMasked) {
        request.allowed.for_each_panel([&](int panel, uint32_t) { row.panels.push_back(panel); });
        num_in_order = row.panels.size();
    } else if (const float* bounds = bounds_of(row, scratch)) {
        gather(row, request.allowed, scratch.sampling.allowed);
        adjust_allowed(request, scratch.sampling.allowed);
        const float bar = nth_largest(scratch.sampling.allowed.row(), request.num_best(), scratch.peaks);
        row.panels.clear();
        add_panels(bounds, embedding_.num_panels(), bar, kMostPanels, row.panels);
        num_in_order = row.panels.size();
        request.for_each_raised([&](int32_t id) {
            if (!has_too_many(row)) row.panels.push_back(id / kPanel);
        });
    }
    if (row.path == RowPath::kRead) add_reported(row, scratch);
    if (row.panels.size() == num_in_order || has_too_many(row)) return;
    std::sort(row.panels.begin(), row.panels.end());
    row.panels.erase(std::unique(row.panels.begin(), row.panels.end()), row.panels.end());
}

void PanelHead::add_reported(Row& row, Scratch& scratch) const {
    const RowRequest& request = *row.request;
    if (request.has_target()) row.panels.push_back(request.target / kPanel);
    for (const int32_t id : request.reported)
        if (!has_too_many(row)) row.panels.push_back(id / kPanel);
    if (request.num_logprobs <= 0 || !request.reported.empty()) return;
    const float* peaks = reader_.peaks(row.place);
    const float least = reached_by(peaks, embedding_.num_panels(), request.num_logprobs, scratch.peaks);
    add_panels(peaks, embedding_.num_panels(), least, kMostPanels, row.panels);
}

void PanelHead::place_panels() {
    int64_t num_panels = 0;
    for (int i = 0; i < num_rows_; ++i) {
        Row& row = rows_[size_t(i)];
        if (row.is_left) continue;
        row.is_left = has_too_many(row) || (num_panels + int64_t(row.panels.size())) * kPanel > logits_.size();
        if (row.is_left) {
            left_.push_back(row.number);
            row.panels.clear();
        }
        row.first = num_panels;
        num_panels += int64_t(row.panels.size());
    }
}

void PanelHead::score(int chunk, Scratch& scratch) {
    const auto [first, last] = embedding_.chunk(chunk);
    bool is_wanted = false;
    for (int i = 0; i < num_rows_; ++i) {
        const std::vector<int>& panels = rows_[size_t(i)].panels;
        const auto next = std::lower_bound(panels.begin(), panels.end(), first);
        scratch.next[size_t(i)] = size_t(next - panels.begin());
        is_wanted |= next != panels.end() && *next < last;
    }
    for (int panel = first; is_wanted && panel < last; ++panel) score_panel(panel, scratch);
}

// Of all rows that it is computed for: it is read once for them.
void PanelHead::score_panel(int panel, Scratch& scratch) {
    std::vector<int>& numbers = scratch.numbers;
    std::vector<float*>& places = scratch.places;
    numbers.clear();
    places.clear();
    for (int i = 0; i < num_rows_; ++i) {
        const Row& row = rows_[size_t(i)];
        size_t& next = scratch.next[size_t(i)];
        if (next == row.panels.size() || row.panels[next] != panel) continue;
        numbers.push_back(row.number);
        places.push_back(logits_.data() + (row.first + int64_t(next++)) * kPanel);
    }
    if (numbers.empty()) return;
    const Activations in = scratch.in.gather(in_, numbers);
    exact_logits(kernels_, embedding_, in, panel, panel + 1, scratch.logits.data(), kPanel, scratch.bytes);
    for (size_t i = 0; i < places.size(); ++i) std::copy_n(scratch.logits.data() + i * kPanel, kPanel, places[i]);
}

void PanelHead::gather(const Row& row, const TokenMask& mask, AllowedLogits& allowed) const {
    const float* logits = logits_.data() + row.first * kPanel;
    allowed.begin(int(row.panels.size()) * kPanel);
    for (const int panel : row.panels) {
        allowed.add(panel, mask.restricts() ? mask.of_panel(panel) : embedding_.ids_of(panel), logits);
        logits += kPanel;
    }
}

float PanelHead::logit(const Row& row, int32_t id) const {
    const auto panel = std::lower_bound(row.panels.begin(), row.panels.end(), id / kPanel);
    return logits_[(row.first + (panel - row.panels.begin())) * kPanel + id % kPanel];
}

Sampled PanelHead::choose(const Row& row, SamplingScratch& scratch) const {
    gather(row, row.request->allowed, scratch.allowed);
    adjust_allowed(*row.request, scratch.allowed);
    return choose_allowed(*row.request, scratch);
}

Sampled PanelHead::answer(const Row& row, SamplingScratch& scratch) const {
    const RowRequest& request = *row.request;
    if (row.path != RowPath::kRead) return choose(row, scratch);
    Sampled sampled;
    const double log_mass = reader_.log_mass(row.place);
    if (request.has_target()) {
        sampled.token_id = request.target;
        sampled.is_finite = !std::isnan(log_mass);
        if (request.wants_rank) sampled.rank = reader_.rank(row.place);
    } else {
        sampled = choose(row, scratch);
    }
    if (sampled.token_id >= 0) sampled.logprob = logprob_of(logit(row, sampled.token_id), log_mass);
    if (std::isnan(log_mass)) return sampled;
    for (const int32_t id : request.reported) sampled.top.emplace_back(id, logprob_of(logit(row, id), log_mass));
    if (request.num_logprobs > 0 && request.reported.empty()) {
        gather(row, TokenMask(), scratch.allowed);
        sampled.top = likeliest(scratch.allowed.row(), request.num_logprobs, log_mass, scratch);
    }
    return sampled;
}

}  // namespace gemma3
