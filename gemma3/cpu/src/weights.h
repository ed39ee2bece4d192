// A model's sizes and its packed weights, found by name among the tensors of the packed file. Nothing is copied but norms.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "buffers.h"
#include "head.h"

namespace gemma3 {

// As in gemma3/config.py.
struct ModelConfig {
    int vocab_size, hidden_size, intermediate_size, num_layers, num_heads, num_kv_heads, head_dim;
    float rms_norm_eps, query_scale;
    double rope_theta, rope_local_theta;
    int sliding_window;
    std::vector<bool> is_sliding;

    // Of a token: all query heads; query, key and value heads, padded to whole panels; half of gate and up, padded likewise.
    int q_size() const { return num_heads * head_dim; }
    int qkv_size() const { return round_up((num_heads + 2 * num_kv_heads) * head_dim, kPanel); }
    int mlp_size() const { return round_up(intermediate_size, kPanel); }
    int padded_head_dim() const { return round_up(head_dim, 32); }  // as attention and the KV cache want it
};

// A tensor of the packed file; the bytes must outlive the model.
struct Tensor {
    const uint8_t* data;
    size_t num_bytes;
};
using Tensors = std::map<std::string, Tensor>;

// A matrix and how its inputs are made ready: `num_inputs` values (before padding), rotated in blocks of `rotation`.
struct Linear {
    std::string name;  // "layers.0.qkv"
    Matrix matrix;
    int num_inputs = 0;
    int rotation = 1;
};

struct Layer {
    bool sliding = false;
    Linear qkv, o, gate_up, down;
    Buffer<float> input_norm, q_norm, k_norm, post_attention_norm, pre_mlp_norm, post_mlp_norm;
};

struct Weights {
    // Throws std::invalid_argument if a size is impossible, or a tensor is missing or of the wrong size.
    Weights(const ModelConfig& config, const Tensors& tensors);

    std::vector<Layer> layers;
    Buffer<float> final_norm;
    Embedding embedding;
    Buffer<float> embedding_factors;  // by channel, of what is looked up
    Linear head;                      // the embedding's high plane, named "embedding"
};

}  // namespace gemma3
