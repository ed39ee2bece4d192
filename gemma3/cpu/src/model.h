// Gemma 3 text on packed weights: the whole step in one call. The readable twin is gemma3/model.py.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "attention.h"
#include "buffers.h"
#include "head.h"
#include "kernels/isa.h"
#include "kv_cache.h"
#include "thread_team.h"

namespace gemma3 {

// As in gemma3/config.py.
struct ModelConfig {
    int vocab_size, hidden_size, intermediate_size, num_layers, num_heads, num_kv_heads, head_dim;
    float rms_norm_eps, query_scale;
    double rope_theta, rope_local_theta;
    int sliding_window;
    std::vector<bool> is_sliding;
};

// A tensor of the packed file; the bytes must outlive the model.
struct Tensor {
    const uint8_t* data;
    size_t num_bytes;
};
using Tensors = std::map<std::string, Tensor>;

class Model {
public:
    // Throws std::invalid_argument if a size is impossible, or a tensor is missing or of the wrong size.
    Model(const ModelConfig& config, const Tensors& tensors, int num_threads, const std::string& isa);

    const std::string isa;
    int num_threads() const { return team_.size(); }

    // Forget all keys and values and make room for this many blocks of 16 tokens.
    void allocate_kv(int num_global_blocks, int num_sliding_blocks);

    // Compute the segments' tokens, write their K and V, and choose a token for each requested row.
    // Throws std::invalid_argument if an id, a row or a block is out of range; nothing is written then.
    std::vector<Sampled> step(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments,
                              const std::vector<RowRequest>& requests);
    // The logits (rows, vocab_size) of some rows instead, for tests.
    std::vector<float> logits(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments,
                              const std::vector<int>& rows);

    // Mean squares of the inputs of each matrix, by channel, over a text: "layers.0.qkv" ... "embedding" (as the head). What
    // packing needs to balance weights against activations. One thread's model only, so that the sums have one order.
    std::map<std::string, std::vector<float>> observe_inputs(const std::vector<int32_t>& token_ids);

private:
    using Observations = std::map<std::string, std::vector<float>>;
    struct Layer {
        Matrix qkv, o, gate_up, down;
        Buffer<float> input_norm, q_norm, k_norm, post_attention_norm, pre_mlp_norm, post_mlp_norm;
    };
    struct RopeTable {
        // cos and sin of (64 i) and of (0 .. 63) times each frequency; a position's angle is the sum of the two.
        std::vector<float> far_cos, far_sin, near_cos, near_sin;
        int num_far = 0;
    };
    struct Scratch {
        Buffer<float> row, cos, sin;
        Buffer<uint16_t> key, value;
        Buffer<uint8_t> unpacked;
    };
    struct RowPlace {
        const Segment* segment;
        int position;
    };

    void validate(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments) const;
    void check_blocks(const Segment& segment) const;
    void begin(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments);
    void reserve_rows(int num_rows);
    void extend_rope(int last_position);

    // All below are called by every thread of the team.
    void forward(int thread);
    template <typename Item, typename RowWork>
    void then_rows(int count, const Item& item, const RowWork& row_work);
    template <typename RowWork>
    void multiply(const Matrix& matrix, const Activations& in, float* out, int64_t stride, int thread, const RowWork& row_work);
    int panels_per_item(const Matrix& matrix) const;
    void embed(int row);
    void prepare_attention(int layer, int row, int thread);
    void rope_angles(bool sliding, int position, Scratch& scratch) const;
    void observe(int layer, const char* matrix, const float* x, int size);
    void norm_and_quantize_row(int row, int to, const Buffer<float>& weight, const Activations& out, int thread, int layer,
                               const char* matrix);

    const ModelConfig config_;
    const Kernels& kernels_;
    ThreadTeam team_;
    const int hidden_, head_dim_, q_size_, qkv_size_;  // padded
    // Strides of rows: not multiples of 4 KiB, which would put all rows into the same few lines of the caches.
    const int64_t qkv_stride_;
    const int mlp_;
    const int64_t gate_up_stride_;
    const int hidden_rotation_, q_rotation_, mlp_rotation_;
    std::vector<Layer> layers_;
    Buffer<float> final_norm_, embedding_factors_;
    Embedding embedding_;
    KvCache kv_;
    Attention attention_;
    std::unique_ptr<Head> head_;
    RopeTable rope_[2];  // by is_sliding
    std::vector<Scratch> scratch_;

    Observations* observations_ = nullptr;  // only while `observe_inputs` runs

    // Of the current step.
    const std::vector<int32_t>* token_ids_ = nullptr;
    std::vector<RowPlace> places_;
    int num_rows_ = 0;
    Buffer<float> residual_, qkv_, attended_, projected_, gate_up_;
    Buffer<uint16_t> queries_;
    ActivationBuffer hidden_memory_, attended_memory_, gated_memory_, final_memory_;
    Activations hidden_in_, attended_in_, gated_in_;
};

}  // namespace gemma3
