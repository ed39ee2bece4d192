// The head: hidden states to tokens. It is two thirds of all weights, so it reads no more of them than a row needs.
#pragma once

#include <cstdint>
#include <vector>

#include "buffers.h"
#include "embedding.h"
#include "masked_head.h"
#include "sampling.h"
#include "thread_team.h"

namespace gemma3 {

// Greedy rows read the high plane alone: it gives every logit but for sum(low * a), what the low nibbles add. Only panels that
// may still hold the largest logit are then scored exactly: those within eight standard deviations, 8 * 4.61 * |a|, of nibbles
// that are independent and uniform on 0..15. That is no proof. Nibbles that follow the signs of the input reach 25 deviations
// (Cauchy-Schwarz, 640 inputs), so a row made for one input can be missed; random nibbles stay within eight but once in 10^15.
// A margin of 25 would be a proof, and leave 14 % of the panels instead of 0.1 % (988 greedy steps of real texts).
// Where a row allows only some ids, the bounds and the scores are of those alone.
//
// Rows that may choose among few ids are the masked head's. All others get all logits.
class Head {
public:
    Head(const Kernels& kernels, Embedding embedding, int num_threads);

    // Prepare a step; to be called before `run`. `in` has one row for each request.
    void begin(const Activations& in, const std::vector<RowRequest>& requests);
    // Called by all threads of the team.
    void run(ThreadTeam& team, int thread);
    const std::vector<Sampled>& results() const { return results_; }
    // All logits of all rows of `in` instead: (rows, stride).
    void all_logits(ThreadTeam& team, int thread, const Activations& in, float* out, int64_t stride);

    int64_t padded_vocab() const { return int64_t{embedding_.num_panels()} * kPanel; }

private:
    struct Scratch {
        Buffer<int32_t> sums;  // of the high plane: (greedy rows, a chunk)
        Buffer<uint8_t> bytes;
        SamplingScratch sampling;
    };
    struct Best {
        float logit;
        int32_t token_id;
    };
    struct Candidate {
        int row, panel;  // row of greedy_
        Best best;
    };

    const RowRequest& request_of(int greedy_row) const { return (*requests_)[size_t(greedy_[size_t(greedy_row)])]; }
    void choose_greedily(ThreadTeam& team, int thread);
    void bound_chunk(int chunk, Scratch& scratch);
    void find_candidates(int row, Scratch& scratch);
    void join_candidates();
    void score(Candidate& candidate, Scratch& scratch) const;
    void take_best();

    const Kernels& kernels_;
    const Embedding embedding_;
    MaskedHead masked_head_;
    const int num_chunks_;
    std::vector<Scratch> scratch_;

    const std::vector<RowRequest>* requests_ = nullptr;
    std::vector<int> greedy_, full_, masked_;  // rows of the request list
    Activations greedy_in_, full_in_;
    ActivationBuffer greedy_rows_, full_rows_;
    Buffer<float> upper_bounds_;  // (greedy rows, panels)
    std::vector<std::vector<Candidate>> found_;  // by greedy row
    std::vector<Candidate> candidates_;
    std::vector<Best> best_;  // by greedy row
    Buffer<float> logits_;
    std::vector<Sampled> results_;
};

}  // namespace gemma3
