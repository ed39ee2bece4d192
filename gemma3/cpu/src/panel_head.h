// The head of rows whose answer some panels hold: only their logits are kept. `row_path.h` says which rows these are.
//
// Where few of the likeliest ids are wanted, one or `top_k`, each panel has a bound of its logits: of the high plane, or the
// largest of them, if both planes were read. The largest logits of the panels with the highest bounds, adjusted as the row asks,
// set a bar, and every panel whose bound reaches the bar is computed. Penalties and bans only lower a logit, so bounds hold for
// it as well; panels with an id that may be raised are computed in any case.
// What is chosen has the same bits as what would be chosen from all logits. These are left to whoever has them where a row, or
// the rows together, ask for more panels than there is room for: it is made before the panels are known, and bounded.
#pragma once

#include <cstdint>
#include <vector>

#include "buffers.h"
#include "embedding.h"
#include "panel_bounds.h"
#include "row_path.h"
#include "row_reader.h"
#include "sampling.h"
#include "thread_team.h"

namespace gemma3 {

class PanelHead {
public:
    PanelHead(const Kernels& kernels, const Embedding& embedding, int num_threads);

    // Prepare a step: the rows of the requests that do not need all logits, each with the row of `in` of the same number.
    void begin(const Activations& in, const std::vector<RowRequest>& requests, const std::vector<RowPath>& paths);
    // Called by all threads of the team.
    void run(ThreadTeam& team, int thread, std::vector<Sampled>& results);
    // The requests without a result, for want of room; known after `run`.
    const std::vector<int>& left() const { return left_; }

private:
    struct Scratch {
        Buffer<uint8_t> bytes;
        SamplingScratch sampling;
        std::vector<float> bounds, peaks;
        std::vector<size_t> next;    // by row: the first of its panels that is not done
        std::vector<int> numbers;    // of the rows that a panel is computed for
        std::vector<float*> places;  // of their logits
        ActivationBuffer in;         // and they themselves
        Buffer<float> logits;
    };
    struct Row {
        const RowRequest* request;
        int number;  // of the request
        RowPath path;
        int place;                // among the rows of `bounds_` or `reader_`
        std::vector<int> panels;  // to be computed, in rising order
        int64_t first;            // where the logits of these begin, in panels
        bool is_left;             // to be answered from all logits
    };

    void add(const RowRequest& request, int number, RowPath path, int place);
    // Of the panels with an allowed id, -inf of others; null if nothing is chosen by them.
    const float* bounds_of(const Row& row, Scratch& scratch) const;
    // The panels that set the bar; then those that reach it, and all others that the row asks for.
    void find_likely(Row& row, Scratch& scratch) const;
    void find_all(Row& row, Scratch& scratch) const;
    void add_reported(Row& row, Scratch& scratch) const;
    // Where the logits of all panels found are to lie. Rows that find no room are left.
    void place_panels();
    bool has_too_many(const Row& row) const { return int(row.panels.size()) > kMostPanels; }
    // The logits of those in a chunk, in rising order.
    void score(int chunk, Scratch& scratch);
    void score_panel(int panel, Scratch& scratch);
    // The logits of a row that `mask` allows.
    void gather(const Row& row, const TokenMask& mask, AllowedLogits& allowed) const;
    float logit(const Row& row, int32_t id) const;
    Sampled answer(const Row& row, SamplingScratch& scratch) const;
    Sampled choose(const Row& row, SamplingScratch& scratch) const;

    const Kernels& kernels_;
    const Embedding embedding_;
    PanelBounds bounds_;
    RowReader reader_;
    std::vector<Scratch> scratch_;

    Activations in_;
    std::vector<Row> rows_;  // the first `num_rows_`; the others keep their memory
    int num_rows_ = 0;
    bool is_chosen_by_bounds_ = false;  // any row
    std::vector<int> left_;
    Buffer<float> logits_;  // (panels of all rows, 16)
};

}  // namespace gemma3
