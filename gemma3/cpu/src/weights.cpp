#include "weights.h"

#include <cstring>
#include <stdexcept>

#include "quantize.h"

namespace gemma3 {
namespace {

[[noreturn]] void refuse(const std::string& message) { throw std::invalid_argument(message); }

const ModelConfig& checked(const ModelConfig& config) {
    if (config.num_heads % config.num_kv_heads || config.num_heads / config.num_kv_heads > kMaxRows)
        refuse("num_heads must be a multiple of num_kv_heads, at most 32 times it.");
    if (int(config.is_sliding.size()) != config.num_layers) refuse("is_sliding must have an entry for each layer.");
    return config;
}

enum class Size { kExact, kAtLeast };

Tensor find(const Tensors& tensors, const std::string& name, int64_t num_bytes, Size size = Size::kExact) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) refuse("the packed weights have no tensor " + name + ".");
    const int64_t found_bytes = int64_t(found->second.num_bytes);
    if (size == Size::kExact ? found_bytes != num_bytes : found_bytes < num_bytes)
        refuse(name + " has " + std::to_string(found_bytes) + " bytes, expected " + std::to_string(num_bytes) + ".");
    return found->second;
}

const float* find_floats(const Tensors& tensors, const std::string& name, int64_t count, Size size = Size::kExact) {
    return reinterpret_cast<const float*>(find(tensors, name, count * int64_t{sizeof(float)}, size).data);
}

// `panels` is what the tensor of panels is called after the dot.
Matrix find_matrix(const Tensors& tensors, const std::string& name, Format format, int num_outputs, int num_inputs,
                   const char* panels, Size size = Size::kExact) {
    Matrix matrix;
    matrix.format = format;
    matrix.num_panels = round_up(num_outputs, kPanel) / kPanel;
    matrix.num_inputs = round_up(num_inputs, kGroup);
    const int64_t outputs = int64_t{matrix.num_panels} * kPanel;
    matrix.panels = find(tensors, name + "." + panels, matrix.num_panels * matrix.panel_bytes(), size).data;
    if (format == Format::kInt4)
        matrix.multipliers = find(tensors, name + ".multipliers", outputs * (matrix.num_inputs / kGroup)).data;
    matrix.scales = find_floats(tensors, name + ".scales", outputs, size);
    return matrix;
}

// A matrix with multipliers has 4 bits, one without 8.
Linear find_linear(const Tensors& tensors, const std::string& name, int num_outputs, int num_inputs) {
    const bool is_int4 = tensors.count(name + ".multipliers") > 0;
    const Format format = is_int4 ? Format::kInt4 : Format::kInt8;
    return {name, find_matrix(tensors, name, format, num_outputs, num_inputs, "panels"), num_inputs, rotation_of(num_inputs)};
}

// Padded with zeros.
Buffer<float> find_norm(const Tensors& tensors, const std::string& name, int size) {
    Buffer<float> norm(round_up(size, kGroup));
    std::memcpy(norm.data(), find_floats(tensors, name, size), size_t(size) * sizeof(float));
    return norm;
}

// The packed rows may be more than the vocabulary: the rows behind it are never read, but for those of its last panel.
Embedding find_embedding(const Tensors& tensors, const ModelConfig& config) {
    const auto plane = [&](const char* name) {
        return find_matrix(tensors, "embedding", Format::kNibbles, config.vocab_size, config.hidden_size, name, Size::kAtLeast);
    };
    Embedding embedding;
    embedding.high = plane("high");
    embedding.low = plane("low");
    embedding.scales = embedding.high.scales;
    embedding.vocab_size = config.vocab_size;
    return embedding;
}

Layer find_layer(const Tensors& tensors, const ModelConfig& config, int index) {
    const std::string prefix = "layers." + std::to_string(index) + ".";
    const int hidden = config.hidden_size;
    Layer layer;
    layer.sliding = config.is_sliding[size_t(index)];
    layer.qkv = find_linear(tensors, prefix + "qkv", config.qkv_size(), hidden);
    layer.o = find_linear(tensors, prefix + "o", hidden, config.q_size());
    layer.gate_up = find_linear(tensors, prefix + "gate_up", 2 * config.mlp_size(), hidden);
    layer.down = find_linear(tensors, prefix + "down", hidden, config.intermediate_size);
    layer.input_norm = find_norm(tensors, prefix + "input_norm", hidden);
    layer.q_norm = find_norm(tensors, prefix + "q_norm", config.head_dim);
    layer.k_norm = find_norm(tensors, prefix + "k_norm", config.head_dim);
    layer.post_attention_norm = find_norm(tensors, prefix + "post_attention_norm", hidden);
    layer.pre_mlp_norm = find_norm(tensors, prefix + "pre_mlp_norm", hidden);
    layer.post_mlp_norm = find_norm(tensors, prefix + "post_mlp_norm", hidden);
    return layer;
}

}  // namespace

Weights::Weights(const ModelConfig& config, const Tensors& tensors)
    : final_norm(find_norm(tensors, "final_norm", checked(config).hidden_size)),
      embedding(find_embedding(tensors, config)),
      embedding_factors(find_norm(tensors, "embedding.factors", config.hidden_size)),
      head{"embedding", embedding.high, config.hidden_size, rotation_of(config.hidden_size)} {
    for (int i = 0; i < config.num_layers; ++i) layers.push_back(find_layer(tensors, config, i));
}

}  // namespace gemma3
