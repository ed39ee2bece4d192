// From token ids to the residual stream after the last layer, on all threads of the team, in one of two ways that give the same
// bits. Few rows: in phases, whose products are shared by panels, so that each weight is read once. Many rows: in blocks of rows,
// each of which goes from one attention to the next on one thread, so that its values stay in that core's caches and threads
// meet twice a layer. Knows nothing of requests and sampling.
#include "model.h"

#include <algorithm>
#include <utility>

namespace gemma3 {
namespace {

constexpr int kSerialRows = 2;  // up to here the last thread to finish a product does the row's work: one meeting less

}  // namespace

void Model::forward(int thread) {
    if (is_worth_blocks()) {
        forward_by_blocks(thread);
    } else {
        forward_by_phases(thread);
    }
}

// Each thread has a block, and threads idle for an eighth of the time at most since blocks do not come out even.
bool Model::is_worth_blocks() const {
    const int rows_at_once = kBlockRows * team_.size();
    const int num_rounds = (step_.num_rows() + rows_at_once - 1) / rows_at_once;
    return step_.num_rows() >= rows_at_once && 8 * step_.num_rows() >= 7 * num_rounds * rows_at_once;
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

void Model::forward_by_phases(int thread) {
    Step& s = step_;
    Scratch& scratch = scratch_[size_t(thread)];
    const Layer& first = weights_.layers[0];
    items_then_rows(s.num_rows(), [&](int row) { embed(row); },
                    [&](int row) { quantize_normed(row, first.input_norm, first.qkv, s.hidden_in, row, thread); });
    for (int i = 0; i < config_.num_layers; ++i) {
        const Layer& layer = weights_.layers[size_t(i)];
        const Layer* next = i + 1 < config_.num_layers ? &layer + 1 : nullptr;
        product_then_rows(layer.qkv, s.hidden_in, s.qkv, thread, [&](int row) { prepare_attention(i, row, s.qkv.row(row), scratch); });
        items_then_rows(attention_.num_items(layer.sliding), [&](int item) {
            attention_.run_item(kv_, i, layer.sliding, item, std::as_const(s.queries).rows(), s.attended.rows(), thread);
        }, [&](int row) {
            attention_.finish_row(layer.sliding, row, s.attended.row(row), thread);
            quantize_input(layer.o, s.attended.row(row), s.attended_in, row);
        });
        product_then_rows(layer.o, s.attended_in, s.projected, thread, [&](int row) {
            add_normed(row, s.projected.row(row), layer.post_attention_norm);
            quantize_normed(row, layer.pre_mlp_norm, layer.gate_up, s.hidden_in, row, thread);
        });
        product_then_rows(layer.gate_up, s.hidden_in, s.gate_up, thread, [&](int row) {
            kernels_.gelu_gate(s.gate_up.row(row), scratch.row.data(), config_.mlp_size());
            quantize_input(layer.down, scratch.row.data(), s.gated_in, row);
        });
        product_then_rows(layer.down, s.gated_in, s.projected, thread, [&](int row) {
            add_normed(row, s.projected.row(row), layer.post_mlp_norm);
            if (next) quantize_normed(row, next->input_norm, next->qkv, s.hidden_in, row, thread);
        });
    }
}

void Model::forward_by_blocks(int thread) {
    const int num_rows = step_.num_rows(), count = (num_rows + kBlockRows - 1) / kBlockRows;
    for (int i = 0; i <= config_.num_layers; ++i) {
        team_.for_each(count, [&](int block) {
            const RowRange rows{block * kBlockRows, std::min((block + 1) * kBlockRows, num_rows)};
            if (i == 0) {
                for (int row = rows.first; row < rows.last; ++row) embed(row);
            } else {
                finish_layer(i - 1, rows, thread);
            }
            if (i < config_.num_layers) begin_layer(i, rows, thread);
        });
        if (i < config_.num_layers) attend(i, thread);
    }
}

void Model::attend(int layer_index, int thread) {
    const bool sliding = weights_.layers[size_t(layer_index)].sliding;
    team_.for_each(attention_.num_items(sliding), [&](int item) {
        attention_.run_item(kv_, layer_index, sliding, item, std::as_const(step_.queries).rows(), step_.attended.rows(), thread);
    });
}

// What comes before attention.
void Model::begin_layer(int layer_index, RowRange rows, int thread) {
    const Layer& layer = weights_.layers[size_t(layer_index)];
    Scratch& scratch = scratch_[size_t(thread)];
    for (int row = rows.first; row < rows.last; ++row)
        quantize_normed(row, layer.input_norm, layer.qkv, step_.hidden_in, row, thread);
    const Rows<float> qkv = multiply_block(layer.qkv, step_.hidden_in, rows, scratch);
    for (int row = rows.first; row < rows.last; ++row) prepare_attention(layer_index, row, qkv.row(row - rows.first), scratch);
}

// And what comes after it.
void Model::finish_layer(int layer_index, RowRange rows, int thread) {
    const Layer& layer = weights_.layers[size_t(layer_index)];
    Scratch& scratch = scratch_[size_t(thread)];
    Step& s = step_;
    for (int row = rows.first; row < rows.last; ++row) {
        attention_.finish_row(layer.sliding, row, s.attended.row(row), thread);
        quantize_input(layer.o, s.attended.row(row), s.attended_in, row);
    }
    const Rows<float> attended = multiply_block(layer.o, s.attended_in, rows, scratch);
    for (int row = rows.first; row < rows.last; ++row) {
        add_normed(row, attended.row(row - rows.first), layer.post_attention_norm);
        quantize_normed(row, layer.pre_mlp_norm, layer.gate_up, s.hidden_in, row, thread);
    }
    gate_block(layer, rows, scratch);
    const Rows<float> projected = multiply_block(layer.down, s.gated_in, rows, scratch);
    for (int row = rows.first; row < rows.last; ++row) add_normed(row, projected.row(row - rows.first), layer.post_mlp_norm);
}

Rows<float> Model::multiply_block(const Linear& linear, const Activations& in, RowRange rows, Scratch& scratch) const {
    const Rows<float> out{scratch.products.data(), product_stride()};
    const Activations block = in.slice(rows.first, rows.last - rows.first);
    const int num_panels = linear.matrix.num_panels;
    for (int panel = 0; panel < num_panels; panel += kRunPanels)
        kernels_.matmul(linear.matrix, block, panel, std::min(panel + kRunPanels, num_panels), out.data, out.stride,
                        scratch.product.data());
    return out;
}

// GELU(gate) * up for some panels at a time: 32 rows of all of gate_up would fill the second cache.
void Model::gate_block(const Layer& layer, RowRange rows, Scratch& scratch) {
    const Activations in = step_.hidden_in.slice(rows.first, rows.last - rows.first);
    const Rows<float> run{scratch.products.data(), product_stride()}, gated{scratch.gated.data(), gated_stride()};
    const Matrix& matrix = layer.gate_up.matrix;
    for (int panel = 0; panel < matrix.num_panels; panel += kRunPanels) {
        const int count = std::min(kRunPanels, matrix.num_panels - panel);
        kernels_.matmul(matrix.slice(panel, count), in, 0, count, run.data, run.stride, scratch.product.data());
        for (int r = 0; r < in.num_rows; ++r)
            kernels_.gelu_gate(run.row(r), gated.row(r) + panel / 2 * kPanel, count / 2 * kPanel);
    }
    for (int r = 0; r < in.num_rows; ++r) quantize_input(layer.down, gated.row(r), step_.gated_in, rows.first + r);
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
void Model::prepare_attention(int layer_index, int row, const float* query, Scratch& scratch) {
    const Layer& layer = weights_.layers[size_t(layer_index)];
    const RowPlace& place = step_.places[size_t(row)];
    const Segment& segment = *place.segment;
    const int dim = config_.head_dim, padded = config_.padded_head_dim();
    (layer.sliding ? sliding_rope_ : global_rope_).angles(place.position, scratch.cos.data(), scratch.sin.data());
    const auto norm_rope = [&](const float* head, const Buffer<float>& norm, float scale, uint16_t* out) {
        kernels_.norm_rope(head, norm.data(), config_.rms_norm_eps, scratch.cos.data(), scratch.sin.data(), dim, scale, out);
    };
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

void Model::add_normed(int row, const float* x, const Buffer<float>& norm) {
    kernels_.add_norm(step_.residual.row(row), x, norm.data(), config_.rms_norm_eps, config_.hidden_size);
}

void Model::quantize_input(const Linear& linear, float* x, Activations& out, int to) {
    if (step_.observer) step_.observer->keep(linear, x, to);
    kernels_.quantize(x, linear.num_inputs, linear.rotation, out, to);
}

void Model::quantize_normed(int row, const Buffer<float>& norm, const Linear& linear, Activations& out, int to, int thread) {
    float* normed = scratch_[size_t(thread)].row.data();
    kernels_.norm(step_.residual.row(row), norm.data(), config_.rms_norm_eps, config_.hidden_size, normed);
    quantize_input(linear, normed, out, to);
}

}  // namespace gemma3
