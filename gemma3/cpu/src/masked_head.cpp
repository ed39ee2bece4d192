#include "masked_head.h"

#include <algorithm>

namespace gemma3 {
namespace {

constexpr int kItemPanels = 16;  // handed out at a time: 160 KiB of both planes

// Few panels are at most one in four. Beside others a row costs the heads that read everything less than alone, since they
// unpack a panel once for all of them: then one in sixteen.
constexpr int kFewShare = 4;
constexpr int kMostSharing = 4;  // rows

}  // namespace

MaskedHead::MaskedHead(const Kernels& kernels, const Embedding& embedding, int num_threads)
    : kernels_(kernels), embedding_(embedding), scratch_(size_t(num_threads)) {
    for (Scratch& scratch : scratch_) scratch.bytes.reserve(joined_bytes(embedding));
}

bool MaskedHead::takes(const RowRequest& request, int num_rows) const {
    const int share = kFewShare * std::min(num_rows, kMostSharing);
    return request.allowed.restricts() && !request.reports() && request.allowed.num_panels() <= embedding_.num_panels() / share;
}

void MaskedHead::begin(const Activations& in, const std::vector<RowRequest>& requests, const std::vector<int>& rows) {
    requests_ = &requests;
    in_ = in;
    rows_.clear();
    panels_.clear();
    for (const int row : rows) {
        rows_.push_back({row, int64_t(panels_.size())});
        requests[size_t(row)].allowed.for_each_panel([&](int panel, uint32_t) { panels_.push_back({row, panel}); });
    }
    logits_.reserve(int64_t(panels_.size()) * kPanel);
}

void MaskedHead::run(ThreadTeam& team, int thread, std::vector<Sampled>& results) {
    Scratch& scratch = scratch_[size_t(thread)];
    team.for_each(int((panels_.size() + kItemPanels - 1) / kItemPanels), [&](int item) { score(item, scratch); });
    team.for_each(int(rows_.size()), [&](int i) {
        const MaskedRow& masked = rows_[size_t(i)];
        results[size_t(masked.row)] = choose(masked, scratch.sampling);
    });
}

// Neighbours of a row are multiplied at once.
void MaskedHead::score(int item, Scratch& scratch) {
    const int end = std::min((item + 1) * kItemPanels, int(panels_.size()));
    for (int i = item * kItemPanels; i < end;) {
        const auto [row, first] = panels_[size_t(i)];
        int count = 1;
        while (i + count < end && panels_[size_t(i + count)].row == row && panels_[size_t(i + count)].panel == first + count) ++count;
        exact_logits(kernels_, embedding_, in_.slice(row, 1), first, first + count, logits_.data() + int64_t{i} * kPanel, 0,
                     scratch.bytes);
        i += count;
    }
}

Sampled MaskedHead::choose(const MaskedRow& masked, SamplingScratch& scratch) const {
    const RowRequest& request = (*requests_)[size_t(masked.row)];
    const float* logits = logits_.data() + masked.first * kPanel;
    scratch.allowed.begin(request.allowed.num_ids());
    request.allowed.for_each_panel([&](int panel, uint32_t bits) {
        scratch.allowed.add(panel, bits, logits);
        logits += kPanel;
    });
    return sample_allowed(request, scratch);
}

}  // namespace gemma3
