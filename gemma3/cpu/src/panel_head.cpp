#include "panel_head.h"

#include <algorithm>

namespace gemma3 {
namespace {

constexpr int kMostBest = 256;  // likeliest ids that are looked for by their bounds

// Few panels are at most one in four. Beside others a row costs the heads that read everything less than alone, since they
// unpack a panel once for all of them: then one in sixteen.
constexpr int kFewShare = 4;
constexpr int kMostSharing = 4;  // rows

}  // namespace

PanelHead::PanelHead(const Kernels& kernels, const Embedding& embedding, int num_threads)
    : kernels_(kernels), embedding_(embedding), bounds_(kernels, embedding, num_threads), scratch_(size_t(num_threads)) {
    for (Scratch& scratch : scratch_) scratch.bytes.reserve(joined_bytes(embedding));
}

bool PanelHead::is_masked(const RowRequest& request, int num_rows) const {
    const int share = kFewShare * std::min(num_rows, kMostSharing);
    return request.allowed.restricts() && request.allowed.num_panels() <= embedding_.num_panels() / share;
}

bool PanelHead::takes(const RowRequest& request, int num_rows) const {
    const bool is_of_few = request.num_best() > 0 && request.num_best() <= kMostBest;
    return !request.reports() && (is_of_few || is_masked(request, num_rows));
}

void PanelHead::begin(const Activations& in, const std::vector<RowRequest>& requests, const std::vector<int>& rows) {
    requests_ = &requests;
    in_ = in;
    rows_ = rows;
    const auto is_bounded = [&](int row) { return !is_masked(requests[size_t(row)], int(requests.size())); };
    num_bounded_ = int(std::stable_partition(rows_.begin(), rows_.end(), is_bounded) - rows_.begin());
    bounds_.begin(in, requests, {rows_.begin(), rows_.begin() + num_bounded_});
    found_.resize(std::max(found_.size(), rows_.size()));
    firsts_.resize(rows_.size());
    for (Scratch& scratch : scratch_) scratch.next.resize(rows_.size());
    for (size_t i = 0; i < rows_.size(); ++i) {
        found_[i].clear();
        if (int(i) >= num_bounded_)
            requests[size_t(rows_[i])].allowed.for_each_panel([&](int panel, uint32_t) { found_[i].push_back(panel); });
    }
}

void PanelHead::run(ThreadTeam& team, int thread, std::vector<Sampled>& results) {
    Scratch& scratch = scratch_[size_t(thread)];
    const int num_rows = int(rows_.size());
    bounds_.run(team, thread);
    if (num_bounded_ > 0) {
        team.for_each_and_last(num_bounded_, [&](int i) { find_likely(i, scratch); }, [&] { make_room(num_bounded_); });
        team.for_each(embedding_.num_chunks(), [&](int chunk) { score(chunk, num_bounded_, scratch); });
    }
    team.for_each_and_last(num_bounded_, [&](int i) { find_all(i, scratch); }, [&] { make_room(num_rows); });
    team.for_each(embedding_.num_chunks(), [&](int chunk) { score(chunk, num_rows, scratch); });
    team.for_each(num_rows, [&](int i) {
        gather(i, scratch.sampling.allowed);
        results[size_t(rows_[size_t(i)])] = choose_allowed(request(i), scratch.sampling);
    });
}

// One panel more than ids are wanted, so that sampling sees more ids than it leaves.
void PanelHead::find_likely(int i, Scratch& scratch) {
    bounds_.find_panels(i, bounds_.reached_by(i, request(i).num_best() + 1, scratch.peaks), found_[size_t(i)]);
}

// The last of the likeliest ids of the panels found so far is no more than the last of the likeliest of all.
void PanelHead::find_all(int i, Scratch& scratch) {
    std::vector<int>& found = found_[size_t(i)];
    gather(i, scratch.sampling.allowed);
    bounds_.find_panels(i, nth_largest(scratch.sampling.allowed.row(), request(i).num_best(), scratch.peaks), found);
    const size_t num_reaching = found.size();
    request(i).for_each_raised([&](int32_t id) { found.push_back(id / kPanel); });
    if (found.size() == num_reaching) return;
    std::sort(found.begin(), found.end());
    found.erase(std::unique(found.begin(), found.end()), found.end());
}

void PanelHead::make_room(int num_rows) {
    int64_t num_panels = 0;
    for (int i = 0; i < num_rows; ++i) {
        firsts_[size_t(i)] = num_panels;
        num_panels += int64_t(found_[size_t(i)].size());
    }
    logits_.reserve(num_panels * kPanel);
}

// A panel is read once for all rows.
void PanelHead::score(int chunk, int num_rows, Scratch& scratch) {
    const auto [first, last] = embedding_.chunk(chunk);
    std::vector<size_t>& next = scratch.next;  // by row: the first of its panels that is not done
    for (int i = 0; i < num_rows; ++i) {
        const std::vector<int>& found = found_[size_t(i)];
        next[size_t(i)] = size_t(std::lower_bound(found.begin(), found.end(), first) - found.begin());
    }
    for (int panel = first; panel < last; ++panel) {
        Matrix joined;
        for (int i = 0; i < num_rows; ++i) {
            size_t& place = next[size_t(i)];
            if (place == found_[size_t(i)].size() || found_[size_t(i)][place] != panel) continue;
            if (joined.panels == nullptr) joined = joined_panels(kernels_, embedding_, panel, panel + 1, scratch.bytes);
            float* logits = logits_.data() + (firsts_[size_t(i)] + int64_t(place++)) * kPanel;
            kernels_.matmul(joined, in_.slice(rows_[size_t(i)], 1), 0, 1, logits, kPanel, nullptr);
        }
    }
}

void PanelHead::gather(int i, AllowedLogits& allowed) const {
    const std::vector<int>& found = found_[size_t(i)];
    const TokenMask& mask = request(i).allowed;
    const float* logits = logits_.data() + firsts_[size_t(i)] * kPanel;
    allowed.begin(int(found.size()) * kPanel);
    for (const int panel : found) {
        allowed.add(panel, mask.restricts() ? mask.of_panel(panel) : embedding_.ids_of(panel), logits);
        logits += kPanel;
    }
    adjust_allowed(request(i), allowed);
}

}  // namespace gemma3
