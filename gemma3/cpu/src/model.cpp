#include "model.h"

#include <algorithm>
#include <climits>
#include <stdexcept>
#include <utility>

namespace gemma3 {
namespace {

constexpr int kSerialRows = 2;  // up to here the last thread to finish a product does the row's work: one meeting less

[[noreturn]] void refuse(const std::string& message) { throw std::invalid_argument(message); }

void check_row(int row, const std::vector<int32_t>& token_ids) {
    if (row < 0 || row >= int(token_ids.size())) refuse("a requested row is not one of the step's.");
}

}  // namespace

// While it lives, one thread has the model.
class Model::Turn {
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

Model::Model(const ModelConfig& config, const Tensors& tensors, int num_threads, const std::string& isa)
    : config_(config),
      kernels_(kernels_for(isa)),
      team_(num_threads),
      weights_(config, tensors),
      kv_(config.num_kv_heads, config.padded_head_dim(), config.is_sliding),
      attention_(kernels_,
                 {config.num_heads, config.num_kv_heads, config.head_dim, config.padded_head_dim(), config.sliding_window},
                 team_.size()),
      head_(std::make_unique<Head>(kernels_, weights_.embedding, team_.size())),
      global_rope_(config.rope_theta, config.head_dim),
      sliding_rope_(config.rope_local_theta, config.head_dim),
      scratch_(size_t(team_.size())),
      step_(config) {
    for (Scratch& scratch : scratch_) {
        scratch.row.reserve(round_up(std::max(config.hidden_size, config.mlp_size()), kGroup));
        for (Buffer<float>* angles : {&scratch.cos, &scratch.sin}) angles->reserve(config.head_dim);
        for (Buffer<uint16_t>* head : {&scratch.key, &scratch.value}) head->reserve(config.padded_head_dim());
        for (const Layer& layer : weights_.layers)
            for (const Linear* linear : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down})
                scratch.product.reserve(product_scratch(panels_per_item(linear->matrix), linear->matrix.num_inputs));
    }
}

void Model::allocate_kv(int num_global_blocks, int num_sliding_blocks) {
    const Turn turn(*this);
    if (num_global_blocks < 0 || num_sliding_blocks < 0) refuse("the number of blocks cannot be negative.");
    kv_.allocate(num_global_blocks, num_sliding_blocks);
}

void Model::copy_block(int source, int target, bool sliding) {
    const Turn turn(*this);
    for (const int block : {source, target})
        if (block < 0 || block >= kv_.num_blocks(sliding)) refuse("block " + std::to_string(block) + " does not exist.");
    kv_.copy(source, target, sliding);
}

std::vector<Sampled> Model::step(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments,
                                 const std::vector<RowRequest>& requests) {
    const Turn turn(*this);
    validate(token_ids, segments);
    for (const RowRequest& request : requests) {
        check_row(request.row, token_ids);
        request.validate(config_.vocab_size);
    }
    begin(token_ids, segments);
    Activations final_in = final_memory_.of(int(requests.size()), weights_.head.matrix.num_inputs);
    team_.run([&](int thread) {
        forward(thread);
        if (requests.empty()) return;
        const auto quantize_row = [&](int i) {
            quantize_normed(requests[size_t(i)].row, weights_.final_norm, weights_.head, final_in, i, thread);
        };
        team_.for_each_and_last(int(requests.size()), quantize_row, [&] { head_->begin(final_in, requests); });
        head_->run(team_, thread);
    });
    return requests.empty() ? std::vector<Sampled>() : head_->results();
}

std::vector<float> Model::logits(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments,
                                 const std::vector<int>& rows) {
    const Turn turn(*this);
    validate(token_ids, segments);
    for (const int row : rows) check_row(row, token_ids);
    begin(token_ids, segments);
    team_.run([&](int thread) { forward(thread); });
    constexpr int kSlab = 32;  // rows at a time
    RowBuffer<float> slab(head_->padded_vocab());
    slab.reserve(kSlab);
    std::vector<float> result;
    result.reserve(rows.size() * size_t(config_.vocab_size));
    for (size_t first = 0; first < rows.size(); first += kSlab) {
        const int count = int(std::min<size_t>(kSlab, rows.size() - first));
        Activations in = final_memory_.of(count, weights_.head.matrix.num_inputs);
        team_.run([&](int thread) {
            team_.for_each(count, [&](int i) {
                quantize_normed(rows[first + size_t(i)], weights_.final_norm, weights_.head, in, i, thread);
            });
            head_->all_logits(team_, thread, in, slab.row(0), slab.stride());
        });
        for (int i = 0; i < count; ++i) result.insert(result.end(), slab.row(i), slab.row(i) + config_.vocab_size);
    }
    return result;
}

std::map<std::string, std::vector<float>> Model::observe_inputs(const std::vector<int32_t>& token_ids) {
    const Turn turn(*this);
    if (team_.size() != 1) refuse("observe_inputs needs a model of one thread.");
    const int num_tokens = int(token_ids.size()), num_blocks = num_tokens / kBlockSize + 1;
    kv_.allocate(num_blocks, num_blocks);
    std::vector<int32_t> blocks;
    for (int i = 0; i < num_blocks; ++i) blocks.push_back(i);
    const std::vector<Segment> segments{{0, num_tokens, blocks, blocks, 0}};
    validate(token_ids, segments);
    InputSquares observer;
    begin(token_ids, segments, &observer);
    Activations final_in = final_memory_.of(num_tokens, weights_.head.matrix.num_inputs);
    team_.run([&](int thread) {
        forward(thread);
        for (int row = 0; row < num_tokens; ++row)
            quantize_normed(row, weights_.final_norm, weights_.head, final_in, row, thread);
    });
    kv_.allocate(0, 0);
    return observer.means(num_tokens);
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

// In 64 bits: positions and blocks are the caller's, up to the largest int.
void Model::check_blocks(const Segment& segment) const {
    const int64_t start = segment.start_position, first_block = segment.first_sliding_block;
    if (start < 0 || segment.num_tokens < 1 || first_block < 0)
        refuse("a segment needs a position from 0, a token or more, and a first block from 0.");
    const int64_t last = (start + segment.num_tokens - 1) / kBlockSize;
    const int64_t first_seen = std::max<int64_t>(0, start - config_.sliding_window + 1) / kBlockSize;
    if (last >= int64_t(segment.global_blocks.size()) || first_block > first_seen ||
        last - first_block >= int64_t(segment.sliding_blocks.size()) || start + segment.num_tokens > INT_MAX)
        refuse("the block tables of a segment do not reach over all that its tokens see.");
    for (const int32_t block : segment.global_blocks)
        if (block < 0 || block >= kv_.num_blocks(false)) refuse("global block " + std::to_string(block) + " does not exist.");
    for (const int32_t block : segment.sliding_blocks)
        if (block < 0 || block >= kv_.num_blocks(true)) refuse("sliding block " + std::to_string(block) + " does not exist.");
}

void Model::begin(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments, InputSquares* observer) {
    step_.begin(token_ids, segments, observer);
    global_rope_.extend(step_.last_position);
    sliding_rope_.extend(step_.last_position);
    attention_.plan(segments);
}

// About eight items for each thread, of an even number of panels: two are multiplied at a time.
int Model::panels_per_item(const Matrix& matrix) const {
    return std::max(2, matrix.num_panels / (8 * team_.size()) / 2 * 2);
}

template <typename Item, typename RowWork>
void Model::items_then_rows(int count, const Item& item, const RowWork& row_work) {
    if (step_.num_rows() <= kSerialRows) {
        team_.for_each_and_last(count, item, [&] {
            for (int row = 0; row < step_.num_rows(); ++row) row_work(row);
        });
    } else {
        team_.for_each(count, item);
        team_.for_each(step_.num_rows(), row_work);
    }
}

template <typename RowWork>
void Model::product_then_rows(const Linear& linear, const Activations& in, RowBuffer<float>& out, int thread,
                              const RowWork& row_work) {
    const Matrix& matrix = linear.matrix;
    const int panels = panels_per_item(matrix);
    const int count = (matrix.num_panels + panels - 1) / panels;
    items_then_rows(count, [&](int i) {
        kernels_.matmul(matrix, in, i * panels, std::min((i + 1) * panels, matrix.num_panels), out.row(0), out.stride(),
                        scratch_[size_t(thread)].product.data());
    }, row_work);
}

void Model::forward(int thread) {
    Step& s = step_;
    Scratch& scratch = scratch_[size_t(thread)];
    const Layer& first = weights_.layers[0];
    items_then_rows(s.num_rows(), [&](int row) { embed(row); },
                    [&](int row) { quantize_normed(row, first.input_norm, first.qkv, s.hidden_in, row, thread); });
    for (int i = 0; i < config_.num_layers; ++i) {
        const Layer& layer = weights_.layers[size_t(i)];
        const Layer* next = i + 1 < config_.num_layers ? &layer + 1 : nullptr;
        product_then_rows(layer.qkv, s.hidden_in, s.qkv, thread, [&](int row) { prepare_attention(i, row, scratch); });
        items_then_rows(attention_.num_items(layer.sliding), [&](int item) {
            attention_.run_item(kv_, i, layer.sliding, item, std::as_const(s.queries).rows(), s.attended.rows(), thread);
        }, [&](int row) {
            attention_.finish_row(layer.sliding, row, s.attended.row(row), thread);
            quantize_input(layer.o, s.attended.row(row), s.attended_in, row);
        });
        product_then_rows(layer.o, s.attended_in, s.projected, thread, [&](int row) {
            add_normed(row, layer.post_attention_norm);
            quantize_normed(row, layer.pre_mlp_norm, layer.gate_up, s.hidden_in, row, thread);
        });
        product_then_rows(layer.gate_up, s.hidden_in, s.gate_up, thread, [&](int row) {
            kernels_.gelu_gate(s.gate_up.row(row), scratch.row.data(), config_.mlp_size());
            quantize_input(layer.down, scratch.row.data(), s.gated_in, row);
        });
        product_then_rows(layer.down, s.gated_in, s.projected, thread, [&](int row) {
            add_normed(row, layer.post_mlp_norm);
            if (next) quantize_normed(row, next->input_norm, next->qkv, s.hidden_in, row, thread);
        });
    }
}

// The row of the embedding, rotated back, each channel times its factor: sqrt(hidden_size) over what packing multiplied it by.
void Model::embed(int row) {
    const int token_id = step_.places[size_t(row)].token_id, output = token_id % kPanel;
    const Embedding& embedding = weights_.embedding;
    const int64_t panel = int64_t{token_id / kPanel} * embedding.high.panel_bytes();
    const uint8_t *high = embedding.high.panels + panel, *low = embedding.low.panels + panel;
    const float scale = embedding.scales[token_id];
    float* x = step_.residual.row(row);
    for (int i = 0; i < config_.hidden_size; ++i)
        x[i] = scale * static_cast<float>(16 * nibble_at(high, output, i) + nibble_at(low, output, i) - kByteOffset);
    kernels_.rotate(x, config_.hidden_size, weights_.head.rotation);
    for (int i = 0; i < config_.hidden_size; ++i) x[i] *= weights_.embedding_factors[i];
}

// q and k: norm and RoPE; k and v into the cache.
void Model::prepare_attention(int layer_index, int row, Scratch& scratch) {
    const Layer& layer = weights_.layers[size_t(layer_index)];
    const RowPlace& place = step_.places[size_t(row)];
    const Segment& segment = *place.segment;
    const int dim = config_.head_dim, padded = config_.padded_head_dim();
    (layer.sliding ? sliding_rope_ : global_rope_).angles(place.position, scratch.cos.data(), scratch.sin.data());
    const auto norm_rope = [&](const float* head, const Buffer<float>& norm, float scale, uint16_t* out) {
        kernels_.norm_rope(head, norm.data(), config_.rms_norm_eps, scratch.cos.data(), scratch.sin.data(), dim, scale, out);
    };
    const float* query = step_.qkv.row(row);
    for (int head = 0; head < config_.num_heads; ++head)
        norm_rope(query + head * dim, layer.q_norm, config_.query_scale, step_.queries.row(row) + head * padded);
    const std::vector<int32_t>& table = layer.sliding ? segment.sliding_blocks : segment.global_blocks;
    const int block = table[size_t(place.position / kBlockSize - (layer.sliding ? segment.first_sliding_block : 0))];
    for (int head = 0; head < config_.num_kv_heads; ++head) {
        const float* key = query + (config_.num_heads + head) * dim;
        const float* value = key + config_.num_kv_heads * dim;
        norm_rope(key, layer.k_norm, 1.0f, scratch.key.data());
        for (int i = 0; i < dim; ++i) scratch.value[i] = bfloat16_of(value[i]);
        kv_.write(layer_index, block, head, place.position % kBlockSize, scratch.key.data(), scratch.value.data());
    }
}

void Model::add_normed(int row, const Buffer<float>& norm) {
    kernels_.add_norm(step_.residual.row(row), step_.projected.row(row), norm.data(), config_.rms_norm_eps, config_.hidden_size);
}

void Model::quantize_input(const Linear& linear, float* x, Activations& out, int to) {
    if (step_.observer) step_.observer->add(linear.name, x, linear.num_inputs);
    kernels_.quantize(x, linear.num_inputs, linear.rotation, out, to);
}

void Model::quantize_normed(int row, const Buffer<float>& norm, const Linear& linear, Activations& out, int to, int thread) {
    float* normed = scratch_[size_t(thread)].row.data();
    kernels_.norm(step_.residual.row(row), norm.data(), config_.rms_norm_eps, config_.hidden_size, normed);
    quantize_input(linear, normed, out, to);
}

}  // namespace gemma3
