// The head: hidden states to tokens. It is two thirds of all weights, so it reads no more of them than a row needs.
#pragma once

#include <cstdint>
#include <vector>

#include "buffers.h"
#include "embedding.h"
#include "panel_head.h"
#include "sampling.h"
#include "thread_team.h"

namespace gemma3 {

// Rows whose choice some panels decide are the panel head's. All others get all logits, and so do those that it leaves.
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
        Buffer<uint8_t> bytes;
        SamplingScratch sampling;
    };

    // All logits for what the panel head leaves, too.
    void take_left();

    const Kernels& kernels_;
    const Embedding embedding_;
    PanelHead panel_head_;
    std::vector<Scratch> scratch_;

    const std::vector<RowRequest>* requests_ = nullptr;
    std::vector<RowPath> paths_;  // by request
    std::vector<int> full_;       // the requests whose logits are kept
    Activations in_, full_in_;
    ActivationBuffer full_rows_;
    Buffer<float> logits_;
    std::vector<Sampled> results_;
};

}  // namespace gemma3
