// Gemma 3 text on packed weights: the whole step in one call. The readable twin is gemma3/torch_model/model.py.
//
// One thread at a time calls a model; its team of threads computes each step.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "attention.h"
#include "buffers.h"
#include "head.h"
#include "kernels/isa.h"
#include "kv_cache.h"
#include "rope.h"
#include "step.h"
#include "thread_team.h"
#include "weights.h"

namespace gemma3 {

// Every function throws std::runtime_error if another thread is inside one of them.
class Model {
public:
    // Throws std::invalid_argument if a size is impossible, or a tensor is missing or of the wrong size.
    Model(const ModelConfig& config, const Tensors& tensors, int num_threads, const std::string& isa);

    std::string isa() const { return kernels_.name; }
    int num_threads() const { return team_.size(); }

    // Forget all keys and values and make room for this many blocks of 16 tokens.
    void allocate_kv(int num_global_blocks, int num_sliding_blocks);

    // Copy keys and values from block to block of the pool of the sliding or of the global layers.
    // Throws std::invalid_argument if a block does not exist.
    void copy_block(int source, int target, bool sliding);

    // Compute the segments' tokens, write their K and V, and choose a token for each requested row, in their order.
    // Throws std::invalid_argument if an id, a row or a block is out of range; nothing is written then.
    std::vector<Sampled> step(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments,
                              const std::vector<RowRequest>& requests);
    // The logits (rows, vocab_size) of some rows instead, for tests.
    std::vector<float> logits(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments,
                              const std::vector<int>& rows);

    // Mean squares of the inputs of each matrix, by channel, over a text: "layers.0.qkv" ... "embedding" (as the head). What
    // packing needs to balance weights against activations. Needs a model of one thread; keys and values are forgotten.
    std::map<std::string, std::vector<float>> observe_inputs(const std::vector<int32_t>& token_ids);

private:
    // Memory of one thread.
    struct Scratch {
        Buffer<float> row, cos, sin;
        Buffer<uint16_t> key, value;
        Buffer<uint8_t> product;
    };
    class Turn;

    // Throw std::invalid_argument.
    void validate(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments) const;
    void check_blocks(const Segment& segment) const;
    void begin(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments, InputSquares* observer = nullptr);
    // How many panels of a matrix are one thread's piece of work.
    int panels_per_item(const Matrix& matrix) const;

    // All below are called by every thread of the team.
    // From token ids to the residual stream after the last layer.
    void forward(int thread);
    // The items [0, count), shared among the threads, and then `row_work(row)` for each row of the step.
    template <typename Item, typename RowWork>
    void items_then_rows(int count, const Item& item, const RowWork& row_work);
    // out = linear(in) for all rows, and then `row_work(row)` for each.
    template <typename RowWork>
    void product_then_rows(const Linear& linear, const Activations& in, RowBuffer<float>& out, int thread, const RowWork& row_work);

    // On one row of the step, by any thread.
    void embed(int row);
    void prepare_attention(int layer, int row, Scratch& scratch);
    void add_normed(int row, const Buffer<float>& norm);
    // x (linear.num_inputs, changed), the input of a matrix, to row `to` of `out`.
    void quantize_input(const Linear& linear, float* x, Activations& out, int to);
    // The same of the residual stream of a row, normalised.
    void quantize_normed(int row, const Buffer<float>& norm, const Linear& linear, Activations& out, int to, int thread);

    const ModelConfig config_;
    const Kernels& kernels_;
    ThreadTeam team_;
    Weights weights_;
    KvCache kv_;
    Attention attention_;
    std::unique_ptr<Head> head_;
    RopeTable global_rope_, sliding_rope_;
    std::vector<Scratch> scratch_;  // by thread
    Step step_;
    ActivationBuffer final_memory_;  // of the rows whose logits are wanted
    std::atomic<bool> is_busy_{false};
};

}  // namespace gemma3
