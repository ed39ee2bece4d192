// The head of rows that may choose among few ids: the panels of those ids are computed, exactly, and nothing else. An answer of
// one word in five costs 50 KB of weights instead of 84 MB.
#pragma once

#include <cstdint>
#include <vector>

#include "buffers.h"
#include "embedding.h"
#include "sampling.h"
#include "thread_team.h"

namespace gemma3 {

class MaskedHead {
public:
    MaskedHead(const Kernels& kernels, const Embedding& embedding, int num_threads);

    // Whether one of `num_rows` rows is for this head: it reports nothing, and few panels have an id that it allows. A matter of
    // speed alone: every head says the same.
    bool takes(const RowRequest& request, int num_rows) const;
    // Prepare a step: `rows` of the requests, each with the row of `in` of the same number.
    void begin(const Activations& in, const std::vector<RowRequest>& requests, const std::vector<int>& rows);
    // Called by all threads of the team.
    void run(ThreadTeam& team, int thread, std::vector<Sampled>& results);

private:
    struct Scratch {
        Buffer<uint8_t> bytes;
        SamplingScratch sampling;
    };
    // An allowed panel of a row; its logits are the 16 in `logits_` of the same place in the list.
    struct RowPanel {
        int row, panel;
    };
    struct MaskedRow {
        int row;
        int64_t first;  // of its panels, which follow each other in rising order
    };

    void score(int item, Scratch& scratch);
    Sampled choose(const MaskedRow& masked, SamplingScratch& scratch) const;

    const Kernels& kernels_;
    const Embedding embedding_;
    std::vector<Scratch> scratch_;

    const std::vector<RowRequest>* requests_ = nullptr;
    Activations in_;
    std::vector<MaskedRow> rows_;
    std::vector<RowPanel> panels_;  // of all rows
    Buffer<float> logits_;          // (panels_, 16)
};

}  // namespace gemma3
