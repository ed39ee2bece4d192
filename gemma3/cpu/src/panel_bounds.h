// Upper bounds of logits by panel, from the high plane of the embedding alone: half of the bytes of the head.
//
// The high plane gives every logit but for sum(low * a), what the low nibbles add. That is taken to lie within eight standard
// deviations, 8 * 4.61 * |a|, of nibbles that are independent and uniform on 0..15. It is no proof. Nibbles that follow the
// signs of the input reach 25 deviations (Cauchy-Schwarz, 640 inputs), so a row of the embedding made for one input can be
// missed; random nibbles stay within eight but once in 10^15. A margin of 25 would be a proof, and leave 14 % of the panels
// instead of 0.1 % to a greedy row (988 steps of real texts).
#pragma once

#include <vector>

#include "buffers.h"
#include "embedding.h"
#include "thread_team.h"

namespace gemma3 {

class PanelBounds {
public:
    PanelBounds(const Kernels& kernels, const Embedding& embedding, int num_threads);

    // Prepare a step for some rows of `in`.
    void begin(const Activations& in, const std::vector<int>& rows);
    // Called by all threads of the team.
    void run(ThreadTeam& team, int thread);

    // Of the i-th of the rows, for each panel: no logit is larger.
    const float* row(int i) const { return bounds_.data() + int64_t{i} * embedding_.num_panels(); }

private:
    struct Scratch {
        Buffer<int32_t> sums;  // (rows, a chunk)
        Buffer<uint8_t> bytes;
    };

    void bound_chunk(int chunk, Scratch& scratch);

    const Kernels& kernels_;
    const Embedding embedding_;
    std::vector<Scratch> scratch_;

    Activations in_;
    ActivationBuffer in_memory_;
    std::vector<float> rests_;  // by row: what the low plane adds at most, less the offset of the bytes
    Buffer<float> bounds_;      // (rows, panels)
};

// A bound that at least `count` of the panels reach, and few more, or all of them. `peaks` is memory.
float reached_by(const float* bounds, int num_panels, int count, std::vector<float>& peaks);
// Adds the panels whose bounds are no less and not -inf, in rising order, until the list is longer than `most`.
void add_panels(const float* bounds, int num_panels, float least, int most, std::vector<int>& panels);

}  // namespace gemma3
