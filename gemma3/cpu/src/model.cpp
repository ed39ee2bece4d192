#include "model.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "quantize.h"

namespace gemma3 {
namespace {

constexpr int kSerialRows = 2;   // up to here the last thread to finish a product does the row's work: one meeting less
constexpr int kRopeStride = 64;

[[noreturn]] void refuse(const std::string& message) { throw std::invalid_argument(message); }

Tensor find(const Tensors& tensors, const std::string& name, int64_t num_bytes) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) refuse("the packed weights have no tensor " + name + ".");
    if (int64_t(found->second.num_bytes) != num_bytes)
        refuse(name + " has " + std::to_string(found->second.num_bytes) + " bytes, expected " + std::to_string(num_bytes) + ".");
    return found->second;
}

Matrix find_matrix(const Tensors& tensors, const std::string& name, Format format, int num_outputs, int num_inputs,
                   const char* panels) {
    Matrix matrix;
    matrix.format = format;
    matrix.num_panels = round_up(num_outputs, kPanel) / kPanel;
    matrix.num_inputs = round_up(num_inputs, kGroup);
    const int64_t outputs = int64_t{matrix.num_panels} * kPanel;
    matrix.panels = find(tensors, name + panels, matrix.num_panels * matrix.panel_bytes()).data;
    if (format == Format::kInt4)
        matrix.multipliers = find(tensors, name + ".multipliers", outputs * (matrix.num_inputs / kGroup)).data;
    matrix.scales = reinterpret_cast<const float*>(find(tensors, name + ".scales", outputs * int64_t{sizeof(float)}).data);
    return matrix;
}

// A matrix with multipliers has 4 bits, one without 8.
Matrix find_matrix(const Tensors& tensors, const std::string& name, int num_outputs, int num_inputs) {
    const bool is_int4 = tensors.count(name + ".multipliers") > 0;
    return find_matrix(tensors, name, is_int4 ? Format::kInt4 : Format::kInt8, num_outputs, num_inputs, ".panels");
}

Buffer<float> find_norm(const Tensors& tensors, const std::string& name, int size) {
    Buffer<float> norm(round_up(size, kGroup));
    std::memcpy(norm.data(), find(tensors, name, size * int64_t{sizeof(float)}).data, size_t(size) * sizeof(float));
    return norm;
}

Embedding find_embedding(const Tensors& tensors, const ModelConfig& config) {
    Embedding embedding;
    embedding.high = find_matrix(tensors, "embedding", Format::kNibbles, config.vocab_size, config.hidden_size, ".high");
    embedding.low = find_matrix(tensors, "embedding", Format::kNibbles, config.vocab_size, config.hidden_size, ".low");
    embedding.scales = embedding.high.scales;
    embedding.vocab_size = config.vocab_size;
    return embedding;
}

ModelConfig checked(const ModelConfig& config) {
    if (config.num_heads % config.num_kv_heads || config.num_heads / config.num_kv_heads > kMaxRows)
        refuse("num_heads must be a multiple of num_kv_heads, at most 32 times it.");
    if (int(config.is_sliding.size()) != config.num_layers) refuse("is_sliding must have an entry for each layer.");
    return config;
}

}  // namespace

Model::Model(const ModelConfig& config, const Tensors& tensors, int num_threads, const std::string& isa_name)
    : isa(kernels_for(isa_name).name),
      config_(checked(config)),
      kernels_(kernels_for(isa_name)),
      team_(num_threads),
      hidden_(round_up(config.hidden_size, kGroup)),
      head_dim_(round_up(config.head_dim, 32)),
      q_size_(config.num_heads * config.head_dim),
      qkv_size_(round_up((config.num_heads + 2 * config.num_kv_heads) * config.head_dim, kPanel)),
      qkv_stride_(qkv_size_ + kPanel),
      mlp_(round_up(config.intermediate_size, kPanel)),
      gate_up_stride_(2 * mlp_ + kPanel),
      hidden_rotation_(rotation_of(config.hidden_size)),
      q_rotation_(rotation_of(q_size_)),
      mlp_rotation_(rotation_of(config.intermediate_size)),
      layers_(size_t(config.num_layers)),
      final_norm_(find_norm(tensors, "final_norm", config.hidden_size)),
      embedding_factors_(find_norm(tensors, "embedding.factors", config.hidden_size)),
      embedding_(find_embedding(tensors, config)),
      kv_(config.num_kv_heads, head_dim_, config.is_sliding),
      attention_(kernels_, {config.num_heads, config.num_kv_heads, head_dim_, config.sliding_window}, team_.size()),
      head_(std::make_unique<Head>(kernels_, embedding_, team_.size())),
      scratch_(size_t(team_.size())) {
    for (int i = 0; i < config.num_layers; ++i) {
        const std::string prefix = "layers." + std::to_string(i) + ".";
        Layer& layer = layers_[size_t(i)];
        layer.qkv = find_matrix(tensors, prefix + "qkv", qkv_size_, config.hidden_size);
        layer.o = find_matrix(tensors, prefix + "o", config.hidden_size, q_size_);
        layer.gate_up = find_matrix(tensors, prefix + "gate_up", 2 * mlp_, config.hidden_size);
        layer.down = find_matrix(tensors, prefix + "down", config.hidden_size, config.intermediate_size);
        layer.input_norm = find_norm(tensors, prefix + "input_norm", config.hidden_size);
        layer.q_norm = find_norm(tensors, prefix + "q_norm", config.head_dim);
        layer.k_norm = find_norm(tensors, prefix + "k_norm", config.head_dim);
        layer.post_attention_norm = find_norm(tensors, prefix + "post_attention_norm", config.hidden_size);
        layer.pre_mlp_norm = find_norm(tensors, prefix + "pre_mlp_norm", config.hidden_size);
        layer.post_mlp_norm = find_norm(tensors, prefix + "post_mlp_norm", config.hidden_size);
    }
    const int widest = std::max({hidden_, round_up(q_size_, kGroup), round_up(mlp_, kGroup)});
    for (Scratch& scratch : scratch_) {
        scratch.row.reserve(widest);
        scratch.cos.reserve(head_dim_);
        scratch.sin.reserve(head_dim_);
        scratch.key.reserve(head_dim_);
        scratch.value.reserve(head_dim_);
        for (const Matrix* matrix : {&layers_[0].qkv, &layers_[0].o, &layers_[0].gate_up, &layers_[0].down})
            scratch.unpacked.reserve(int64_t{panels_per_item(*matrix)} * kPanel * matrix->num_inputs);
    }
}

void Model::allocate_kv(int num_global_blocks, int num_sliding_blocks) {
    if (num_global_blocks < 0 || num_sliding_blocks < 0) refuse("the number of blocks cannot be negative.");
    kv_.allocate(num_global_blocks, num_sliding_blocks);
}

std::vector<Sampled> Model::step(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments,
                                 const std::vector<RowRequest>& requests) {
    validate(token_ids, segments);
    std::vector<int> rows;
    for (const RowRequest& request : requests) {
        if (request.row < 0 || request.row >= int(token_ids.size())) refuse("a requested row is not one of the step's.");
        request.validate(config_.vocab_size);
        rows.push_back(request.row);
    }
    begin(token_ids, segments);
    Activations final_in = final_memory_.of(int(rows.size()), hidden_);
    team_.run([&](int thread) {
        forward(thread);
        if (rows.empty()) return;
        team_.for_each_then(int(rows.size()), [&](int i) {
            norm_and_quantize_row(rows[size_t(i)], i, final_norm_, final_in, thread, -1, "embedding");
        }, [&] { head_->begin(final_in, requests); });
        head_->run(team_, thread);
    });
    return rows.empty() ? std::vector<Sampled>() : head_->results();
}

std::vector<float> Model::logits(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments,
                                 const std::vector<int>& rows) {
    validate(token_ids, segments);
    for (const int row : rows)
        if (row < 0 || row >= int(token_ids.size())) refuse("a requested row is not one of the step's.");
    begin(token_ids, segments);
    constexpr int kSlab = 32;
    const int64_t padded = head_->padded_vocab();
    Buffer<float> slab(kSlab * padded);
    std::vector<float> result(rows.size() * size_t(config_.vocab_size));
    team_.run([&](int thread) { forward(thread); });
    for (size_t first = 0; first < rows.size(); first += kSlab) {
        const int count = int(std::min<size_t>(kSlab, rows.size() - first));
        Activations in = final_memory_.of(count, hidden_);
        team_.run([&](int thread) {
            team_.for_each(count, [&](int i) {
                norm_and_quantize_row(rows[first + size_t(i)], i, final_norm_, in, thread, -1, "embedding");
            });
            head_->all_logits(team_, thread, in, slab.data(), padded);
        });
        for (int i = 0; i < count; ++i)
            std::copy_n(slab.data() + i * padded, config_.vocab_size, result.data() + (first + size_t(i)) * size_t(config_.vocab_size));
    }
    return result;
}

Model::Observations Model::observe_inputs(const std::vector<int32_t>& token_ids) {
    if (team_.size() != 1) refuse("observe_inputs needs a model of one thread.");
    const int num_blocks = int(token_ids.size()) / kBlockSize + 1;
    allocate_kv(num_blocks, num_blocks);
    Segment segment{0, int(token_ids.size()), {}, {}, 0};
    for (int i = 0; i < num_blocks; ++i) segment.global_blocks.push_back(i);
    segment.sliding_blocks = segment.global_blocks;
    const std::vector<Segment> segments{segment};
    validate(token_ids, segments);
    begin(token_ids, segments);
    Observations observations;
    observations_ = &observations;
    team_.run([&](int thread) {
        forward(thread);
        float* normed = scratch_[size_t(thread)].row.data();
        for (int row = 0; row < num_rows_; ++row) {
            kernels_.norm(residual_.data() + int64_t{row} * hidden_, final_norm_.data(), config_.rms_norm_eps,
                          config_.hidden_size, normed);
            observe(-1, "embedding", normed, config_.hidden_size);
        }
    });
    observations_ = nullptr;
    for (auto& [name, squares] : observations)
        for (float& square : squares) square /= static_cast<float>(num_rows_);
    allocate_kv(0, 0);
    return observations;
}

void Model::observe(int layer, const char* matrix, const float* x, int size) {
    if (!observations_) return;
    const std::string name = layer < 0 ? matrix : "layers." + std::to_string(layer) + "." + matrix;
    std::vector<float>& squares = (*observations_)[name];
    squares.resize(size_t(size));
    for (int i = 0; i < size; ++i) squares[size_t(i)] += x[i] * x[i];
}

void Model::validate(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments) const {
    int64_t num_rows = 0;
    for (const Segment& segment : segments) {
        check_blocks(segment);
        num_rows += segment.num_tokens;
    }
    if (num_rows != int64_t(token_ids.size()) || num_rows == 0)
        refuse("the segments have " + std::to_string(num_rows) + " tokens, token_ids " + std::to_string(token_ids.size()) + ".");
    for (const int32_t token_id : token_ids)
        if (token_id < 0 || token_id >= config_.vocab_size) refuse("token id " + std::to_string(token_id) + " is outside the vocabulary.");
}

void Model::check_blocks(const Segment& segment) const {
    if (segment.start_position < 0 || segment.num_tokens < 1 || segment.first_sliding_block < 0)
        refuse("a segment needs a position from 0, a token or more, and a first block from 0.");
    const int last = (segment.start_position + segment.num_tokens - 1) / kBlockSize;
    const int first_seen = std::max(0, segment.start_position - config_.sliding_window + 1) / kBlockSize;
    if (last >= int(segment.global_blocks.size()) || segment.first_sliding_block > first_seen ||
        last - segment.first_sliding_block >= int(segment.sliding_blocks.size()))
        refuse("the block tables of a segment do not reach over all that its tokens see.");
    for (const int32_t block : segment.global_blocks)
        if (block < 0 || block >= kv_.num_blocks(false)) refuse("global block " + std::to_string(block) + " does not exist.");
    for (const int32_t block : segment.sliding_blocks)
        if (block < 0 || block >= kv_.num_blocks(true)) refuse("sliding block " + std::to_string(block) + " does not exist.");
}

void Model::begin(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments) {
    token_ids_ = &token_ids;
    places_.clear();
    for (const Segment& segment : segments)
        for (int i = 0; i < segment.num_tokens; ++i) places_.push_back({&segment, segment.start_position + i});
    int last_position = 0;
    for (const RowPlace& place : places_) last_position = std::max(last_position, place.position);
    extend_rope(last_position);
    reserve_rows(int(token_ids.size()));
    attention_.plan(segments);
}

void Model::reserve_rows(int num_rows) {
    num_rows_ = num_rows;
    const int64_t rows = num_rows;
    residual_.reserve(rows * hidden_);
    qkv_.reserve(rows * qkv_stride_);
    attended_.reserve(rows * round_up(q_size_, kGroup));
    projected_.reserve(rows * hidden_);
    gate_up_.reserve(rows * gate_up_stride_);
    queries_.reserve(rows * config_.num_heads * head_dim_);
    hidden_in_ = hidden_memory_.of(num_rows, hidden_);
    attended_in_ = attended_memory_.of(num_rows, round_up(q_size_, kGroup));
    gated_in_ = gated_memory_.of(num_rows, round_up(config_.intermediate_size, kGroup));
}

void Model::extend_rope(int last_position) {
    const int half = config_.head_dim / 2, needed = last_position / kRopeStride + 1;
    for (const bool sliding : {false, true}) {
        RopeTable& table = rope_[sliding];
        const double theta = sliding ? config_.rope_local_theta : config_.rope_theta;
        const auto fill = [&](std::vector<float>& cosines, std::vector<float>& sines, int position) {
            for (int i = 0; i < half; ++i) {
                // The frequency is a float32, as in the reference.
                const float frequency = 1.0f / static_cast<float>(std::pow(theta, 2.0 * i / config_.head_dim));
                cosines.push_back(static_cast<float>(std::cos(position * double{frequency})));
                sines.push_back(static_cast<float>(std::sin(position * double{frequency})));
            }
        };
        if (table.num_far == 0)
            for (int i = 0; i < kRopeStride; ++i) fill(table.near_cos, table.near_sin, i);
        for (; table.num_far < needed; ++table.num_far) fill(table.far_cos, table.far_sin, table.num_far * kRopeStride);
    }
}

template <typename Item, typename RowWork>
void Model::then_rows(int count, const Item& item, const RowWork& row_work) {
    if (num_rows_ <= kSerialRows) {
        team_.for_each_then(count, item, [&] {
            for (int row = 0; row < num_rows_; ++row) row_work(row);
        });
    } else {
        team_.for_each(count, item);
        team_.for_each(num_rows_, row_work);
    }
}

// About eight items for each thread, of an even number of panels: two are multiplied at a time.
int Model::panels_per_item(const Matrix& matrix) const {
    return std::max(2, matrix.num_panels / (8 * team_.size()) / 2 * 2);
}

// One product, cut into runs of panels, and then some work on each row of its result.
template <typename RowWork>
void Model::multiply(const Matrix& matrix, const Activations& in, float* out, int64_t stride, int thread,
                     const RowWork& row_work) {
    const int panels = panels_per_item(matrix);
    const int count = (matrix.num_panels + panels - 1) / panels;
    then_rows(count, [&](int i) {
        kernels_.matmul(matrix, in, i * panels, std::min((i + 1) * panels, matrix.num_panels), out, stride,
                        scratch_[size_t(thread)].unpacked.data());
    }, row_work);
}

void Model::forward(int thread) {
    const int64_t q_stride = round_up(q_size_, kGroup);
    Scratch& scratch = scratch_[size_t(thread)];
    then_rows(num_rows_, [&](int row) { embed(row); },
              [&](int row) { norm_and_quantize_row(row, row, layers_[0].input_norm, hidden_in_, thread, 0, "qkv"); });
    for (int i = 0; i < config_.num_layers; ++i) {
        const Layer& layer = layers_[size_t(i)];
        const bool sliding = config_.is_sliding[size_t(i)];
        multiply(layer.qkv, hidden_in_, qkv_.data(), qkv_stride_, thread, [&](int row) { prepare_attention(i, row, thread); });
        then_rows(attention_.num_items(sliding), [&](int item) {
            attention_.run_item(kv_, i, sliding, item, queries_.data(), attended_.data(), q_stride, config_.head_dim, thread);
        }, [&](int row) {
            attention_.finish_row(sliding, row, attended_.data(), q_stride, config_.head_dim, thread);
            observe(i, "o", attended_.data() + row * q_stride, q_size_);
            kernels_.quantize(attended_.data() + row * q_stride, q_size_, q_rotation_, attended_in_, row);
        });
        multiply(layer.o, attended_in_, projected_.data(), hidden_, thread, [&](int row) {
            kernels_.add_norm(residual_.data() + int64_t{row} * hidden_, projected_.data() + int64_t{row} * hidden_,
                              layer.post_attention_norm.data(), config_.rms_norm_eps, config_.hidden_size);
            norm_and_quantize_row(row, row, layer.pre_mlp_norm, hidden_in_, thread, i, "gate_up");
        });
        multiply(layer.gate_up, hidden_in_, gate_up_.data(), gate_up_stride_, thread, [&](int row) {
            kernels_.gelu_gate(gate_up_.data() + int64_t{row} * gate_up_stride_, scratch.row.data(), mlp_);
            observe(i, "down", scratch.row.data(), config_.intermediate_size);
            kernels_.quantize(scratch.row.data(), config_.intermediate_size, mlp_rotation_, gated_in_, row);
        });
        const bool is_last = i + 1 == config_.num_layers;
        multiply(layer.down, gated_in_, projected_.data(), hidden_, thread, [&](int row) {
            kernels_.add_norm(residual_.data() + int64_t{row} * hidden_, projected_.data() + int64_t{row} * hidden_,
                              layer.post_mlp_norm.data(), config_.rms_norm_eps, config_.hidden_size);
            if (!is_last) norm_and_quantize_row(row, row, layers_[size_t(i + 1)].input_norm, hidden_in_, thread, i + 1, "qkv");
        });
    }
}

// The row of the embedding, rotated back, each channel times its factor: sqrt(hidden_size) over what packing multiplied it by.
void Model::embed(int row) {
    const int token_id = (*token_ids_)[size_t(row)];
    const int64_t panel = int64_t{token_id / kPanel} * embedding_.high.panel_bytes();
    const uint8_t *high = embedding_.high.panels + panel, *low = embedding_.low.panels + panel;
    const int output = token_id % kPanel;
    float* x = residual_.data() + int64_t{row} * hidden_;
    const float scale = embedding_.scales[token_id];
    for (int i = 0; i < config_.hidden_size; ++i)
        x[i] = scale * static_cast<float>(16 * nibble_at(high, output, i) + nibble_at(low, output, i) - kByteOffset);
    kernels_.rotate(x, config_.hidden_size, hidden_rotation_);
    for (int i = 0; i < config_.hidden_size; ++i) x[i] *= embedding_factors_[i];
}

// q and k: norm and RoPE; k and v into the cache.
void Model::prepare_attention(int layer_index, int row, int thread) {
    const Layer& layer = layers_[size_t(layer_index)];
    const bool sliding = config_.is_sliding[size_t(layer_index)];
    const RowPlace& place = places_[size_t(row)];
    Scratch& scratch = scratch_[size_t(thread)];
    const float* qkv = qkv_.data() + int64_t{row} * qkv_stride_;
    const int dim = config_.head_dim;
    rope_angles(sliding, place.position, scratch);
    for (int head = 0; head < config_.num_heads; ++head)
        kernels_.norm_rope(qkv + head * dim, layer.q_norm.data(), config_.rms_norm_eps, scratch.cos.data(), scratch.sin.data(),
                           dim, config_.query_scale, queries_.data() + (int64_t{row} * config_.num_heads + head) * head_dim_);
    const std::vector<int32_t>& table = sliding ? place.segment->sliding_blocks : place.segment->global_blocks;
    const int block = table[size_t(place.position / kBlockSize - (sliding ? place.segment->first_sliding_block : 0))];
    for (int head = 0; head < config_.num_kv_heads; ++head) {
        const float* key = qkv + (config_.num_heads + head) * dim;
        const float* value = key + config_.num_kv_heads * dim;
        kernels_.norm_rope(key, layer.k_norm.data(), config_.rms_norm_eps, scratch.cos.data(), scratch.sin.data(), dim, 1.0f,
                           scratch.key.data());
        for (int i = 0; i < dim; ++i) scratch.value[i] = bfloat16_of(value[i]);
        kv_.write(layer_index, block, head, place.position % kBlockSize, scratch.key.data(), scratch.value.data());
    }
}

void Model::rope_angles(bool sliding, int position, Scratch& scratch) const {
    const RopeTable& table = rope_[sliding];
    const int half = config_.head_dim / 2;
    const float* far_cos = table.far_cos.data() + int64_t{position / kRopeStride} * half;
    const float* far_sin = table.far_sin.data() + int64_t{position / kRopeStride} * half;
    const float* near_cos = table.near_cos.data() + int64_t{position % kRopeStride} * half;
    const float* near_sin = table.near_sin.data() + int64_t{position % kRopeStride} * half;
    for (int i = 0; i < half; ++i) {
        scratch.cos[i] = far_cos[i] * near_cos[i] - far_sin[i] * near_sin[i];
        scratch.sin[i] = far_sin[i] * near_cos[i] + far_cos[i] * near_sin[i];
    }
}

void Model::norm_and_quantize_row(int row, int to, const Buffer<float>& weight, const Activations& out, int thread, int layer,
                                  const char* matrix) {
    float* normed = scratch_[size_t(thread)].row.data();
    kernels_.norm(residual_.data() + int64_t{row} * hidden_, weight.data(), config_.rms_norm_eps, config_.hidden_size, normed);
    observe(layer, matrix, normed, config_.hidden_size);
    kernels_.quantize(normed, config_.hidden_size, hidden_rotation_, out, to);
}

}  // namespace gemma3
