// Gemma 3 text on packed weights: the whole step in one call. The readable twin is gemma3/torch_model/model.py.
//
// One thread at a time calls a model; its team of threads computes each step.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
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

    // Give back the memory of blocks of such a pool: what they hold is lost.
    // Throws std::invalid_argument if a block does not exist.
    void release_blocks(const std::vector<int32_t>& blocks, bool sliding);

    // Compute the segments' tokens, write their K and V, and choose a token for each requested row, in their order.
    // Throws std::invalid_argument if an id, a row or a block is out of range; nothing is written then.
    std::vector<Sampled> step(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments,
                              const std::vector<RowRequest>& requests);
    // The logits (rows, vocab_size) of some rows instead, for tests.
    std::vector<float> logits(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments,
                              const std::vector<int>& rows);

    // Mean squares of the inputs of each matrix, by channel, over a text: "layers.0.qkv" ... "embedding" (as the head). What
    // packing needs to balance weights against activations. `progress` is told how many tokens are done. Keys and values are
    // forgotten.
    std::map<std::string, std::vector<float>> observe_inputs(const std::vector<int32_t>& token_ids,
                                                             const std::function<void(int)>& progress);

private:
    // Memory of one thread.
    struct Scratch {
        Buffer<float> row, cos, sin;
        Buffer<float> products, gated;  // of a block of rows: what a matrix gives; GELU(gate) * up
        Buffer<uint16_t> key, value;
        Buffer<uint8_t> product;
    };
    static constexpr int kBlockRows = 32;  // rows that go through a layer together: two tiles of AMX
    static constexpr int kRunPanels = 64;  // panels of gate_up, an even number, whose results a block keeps in float
    // The rows [first, last) of the step: a block.
    struct RowRange {
        int first, last;
    };
    // While it lives, one thread has the model.
    class Turn {
    public:
        explicit Turn(Model& model) : is_busy_(model.is_busy_) {
            if (is_busy_.exchange(true)) throw std::runtime_error("the model is computing for another thread: one at a time.");
        }
        ~Turn() { is_busy_ = false; }
        Turn(const Turn&) = delete;
        Turn& operator=(const Turn&) = delete;

    private:
        std::atomic<bool>& is_busy_;
    };

    // Throw std::invalid_argument.
    void validate(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments) const;
    void check_pool(const std::vector<int32_t>& blocks, bool sliding) const;
    void check_blocks(const Segment& segment) const;
    void begin(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments, InputSquares* observer = nullptr);
    // A step of a text that is observed.
    void observe(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments, InputSquares& observer);
    // How many panels of a matrix are one thread's piece of work.
    int panels_per_item(const Matrix& matrix) const;

    // All below are called by every thread of the team.
    // From token ids to the residual stream after the last layer; forward.cpp says when in which way.
    void forward(int thread);
    bool is_worth_blocks() const;
    void forward_by_phases(int thread);
    void forward_by_blocks(int thread);
    // The items [0, count), shared among the threads, and then `row_work(row)` for each row of the step.
    template <typename Item, typename RowWork>
    void items_then_rows(int count, const Item& item, const RowWork& row_work);
    // out = linear(in) for all rows, and then `row_work(row)` for each.
    template <typename RowWork>
    void product_then_rows(const Linear& linear, const Activations& in, RowBuffer<float>& out, int thread, const RowWork& row_work);

    // All attention of a layer, shared among the threads.
    void attend(int layer, int thread);

    // On one block of rows, by any thread.
    void begin_layer(int layer, RowRange rows, int thread);
    void finish_layer(int layer, RowRange rows, int thread);
    // linear(in) for the rows: a row of the result for each, in `scratch.products`.
    Rows<float> multiply_block(const Linear& linear, const Activations& in, RowRange rows, Scratch& scratch) const;
    // Quantised inputs of gate_up to those of down.
    void gate_block(const Layer& layer, RowRange rows, Scratch& scratch);
    // Floats from row to row of `products` and `gated`: no multiples of 4 KiB, as in `Step`.
    int64_t product_stride() const {
        return std::max({config_.qkv_size(), round_up(config_.hidden_size, kPanel), kRunPanels * kPanel}) + kPanel;
    }
    int64_t gated_stride() const { return round_up(config_.mlp_size(), kGroup) + kPanel; }

    // On one row of the step, by any thread.
    void embed(int row);
    // `qkv`: what the matrix of that name gave the row.
    void prepare_attention(int layer, int row, const float* qkv, Scratch& scratch);
    void add_normed(int row, const float* x, const Buffer<float>& norm);
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
