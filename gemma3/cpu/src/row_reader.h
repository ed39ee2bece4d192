// Reads both planes of the head for rows whose log probabilities are wanted, and keeps no logit.
//
// The logits of a chunk of panels and some rows lie in the second cache until they are done with: of each panel the largest stays,
// of each chunk the sum of e^logit. What is told of a row depends on that row alone, bit for bit.
#pragma once

#include <vector>

#include "buffers.h"
#include "embedding.h"
#include "logits.h"
#include "row_request.h"
#include "thread_team.h"

namespace gemma3 {

class RowReader {
public:
    RowReader(const Kernels& kernels, const Embedding& embedding, int num_threads);

    // Prepare a step: `rows` of the requests, each with the row of `in` of the same number.
    void begin(const Activations& in, const std::vector<RowRequest>& requests, const std::vector<int>& rows);
    // Called by all threads of the team.
    void run(ThreadTeam& team, int thread);

    // Of the i-th of the rows: the largest logit of each panel, +inf if one is NaN. Not for a target without likeliest ids.
    const float* peaks(int i) const { return peaks_.data() + int64_t{i} * embedding_.num_panels(); }
    // The log of the sum of all e^logit; NaN if a logit is, or the largest is infinite.
    double log_mass(int i) const;
    // Of its target among all ids, if that is wanted.
    int32_t rank(int i) const;

private:
    struct Scratch {
        Buffer<uint8_t> bytes;
        Buffer<float> logits;  // (kRowsAtOnce, a chunk)
    };

    void find_target(int i, Scratch& scratch);
    void read_chunk(int chunk, Scratch& scratch);
    // `logits` are those of a chunk and the i-th row.
    void read(int i, int chunk, const float* logits);

    const Kernels& kernels_;
    const Embedding embedding_;
    std::vector<Scratch> scratch_;

    Activations in_;
    ActivationBuffer in_memory_;
    std::vector<const RowRequest*> requests_;  // by row
    std::vector<float> target_logits_;         // by row, where a rank is wanted
    Buffer<Mass> masses_;                      // (rows, chunks)
    Buffer<int32_t> nums_likelier_;            // (rows, chunks): ids before the target
    Buffer<float> peaks_;                      // (rows, panels)
};

}  // namespace gemma3
