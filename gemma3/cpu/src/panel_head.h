// The head of rows whose choice some panels decide: only those are computed exactly.
//
// Either a mask leaves few panels: an answer of one word in five costs 50 KB of weights instead of 84 MB. Or few of the likeliest
// ids are wanted, one or `top_k`, and the bounds leave few. The largest logits of the panels with the highest bounds, adjusted
// as the row asks, set a bar, and every panel whose bound reaches the bar is computed. Penalties and bans only lower a logit, so
// bounds hold for it as well; panels with an id that may be raised are computed in any case.
// What is chosen from these logits has the same bits as what would be chosen from all.
#pragma once

#include <cstdint>
#include <vector>

#include "buffers.h"
#include "embedding.h"
#include "panel_bounds.h"
#include "sampling.h"
#include "thread_team.h"

namespace gemma3 {

class PanelHead {
public:
    PanelHead(const Kernels& kernels, const Embedding& embedding, int num_threads);

    // Whether one of `num_rows` rows is for this head. A matter of speed alone: every head says the same.
    bool takes(const RowRequest& request, int num_rows) const;
    // Prepare a step: `rows` of the requests, each with the row of `in` of the same number.
    void begin(const Activations& in, const std::vector<RowRequest>& requests, const std::vector<int>& rows);
    // Called by all threads of the team.
    void run(ThreadTeam& team, int thread, std::vector<Sampled>& results);

private:
    struct Scratch {
        Buffer<uint8_t> bytes;
        SamplingScratch sampling;
        std::vector<float> peaks;
        std::vector<size_t> next;
    };

    bool is_masked(const RowRequest& request, int num_rows) const;
    const RowRequest& request(int i) const { return (*requests_)[size_t(rows_[size_t(i)])]; }
    // Of one of `rows_`: the panels that set the bar, then those that reach it.
    void find_likely(int i, Scratch& scratch);
    void find_all(int i, Scratch& scratch);
    // For the logits of the panels found for the first `num_rows` rows.
    void make_room(int num_rows);
    // The logits of those in a chunk.
    void score(int chunk, int num_rows, Scratch& scratch);
    // The logits of a row, adjusted.
    void gather(int i, AllowedLogits& allowed) const;

    const Kernels& kernels_;
    const Embedding embedding_;
    PanelBounds bounds_;
    std::vector<Scratch> scratch_;

    const std::vector<RowRequest>* requests_ = nullptr;
    Activations in_;
    std::vector<int> rows_;  // those with bounds come first
    int num_bounded_ = 0;
    std::vector<std::vector<int>> found_;  // the panels of each of `rows_`, in rising order
    std::vector<int64_t> firsts_;          // where the logits of each row begin, in panels
    Buffer<float> logits_;                 // (panels, 16)
};

}  // namespace gemma3
