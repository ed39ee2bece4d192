#include "head.h"

#include <algorithm>

namespace gemma3 {
namespace {

constexpr int kRowsAtOnce = 32;  // whose logits lie in memory together

}  // namespace

Head::Head(const Kernels& kernels, Embedding embedding, int num_threads)
    : kernels_(kernels), embedding_(embedding), panel_head_(kernels, embedding, num_threads), scratch_(size_t(num_threads)) {
    for (Scratch& scratch : scratch_) scratch.bytes.reserve(joined_bytes(embedding));
}

void Head::begin(const Activations& in, const std::vector<RowRequest>& requests) {
    requests_ = &requests;
    results_.assign(requests.size(), Sampled());
    paths_.clear();
    full_.clear();
    for (int i = 0; i < int(requests.size()); ++i) {
        paths_.push_back(path_of(requests[size_t(i)], embedding_.num_panels(), int(requests.size())));
        if (paths_.back() == RowPath::kKept) full_.push_back(i);
    }
    panel_head_.begin(in, requests, paths_);
    in_ = in;
    // Room for all of them, as the panel head may leave any; memory that nobody writes is not taken from the system.
    full_.reserve(requests.size());
    full_rows_.of(int(requests.size()), in.num_inputs);
    full_in_ = full_rows_.gather(in, full_);
    logits_.reserve(std::min<int64_t>(int64_t(requests.size()), kRowsAtOnce) * padded_vocab());
}

void Head::take_left() {
    full_.insert(full_.end(), panel_head_.left().begin(), panel_head_.left().end());
    full_in_ = full_rows_.gather(in_, full_);
}

void Head::run(ThreadTeam& team, int thread) {
    if (full_.size() < paths_.size()) panel_head_.run(team, thread, results_);
    if (!panel_head_.left().empty()) team.for_each_and_last(0, [](int) {}, [&] { take_left(); });
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
    team.for_each(embedding_.num_chunks(), [&](int chunk) {
        const auto [first, last] = embedding_.chunk(chunk);
        exact_logits(kernels_, embedding_, in, first, last, out + int64_t{first} * kPanel, stride, scratch_[size_t(thread)].bytes);
    });
}

}  // namespace gemma3
