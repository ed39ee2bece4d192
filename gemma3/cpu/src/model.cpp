#include "model.h"

#include <algorithm>
#include <climits>
#include <stdexcept>
#include <utility>

namespace gemma3 {
namespace {

[[noreturn]] void refuse(const std::string& message) { throw std::invalid_argument(message); }

void check_row(int row, const std::vector<int32_t>& token_ids) {
    if (row < 0 || row >= int(token_ids.size())) refuse("a requested row is not one of the step's.");
}

}  // namespace

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
        scratch.products.reserve(kBlockRows * product_stride());
        scratch.gated.reserve(kBlockRows * gated_stride());
        for (const Layer& layer : weights_.layers)
            for (const Linear* linear : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) {
                const int panels = std::max(panels_per_item(linear->matrix), std::min(kRunPanels, linear->matrix.num_panels));
                scratch.product.reserve(product_scratch(panels, linear->matrix.num_inputs));
            }
    }
}

void Model::allocate_kv(int num_global_blocks, int num_sliding_blocks) {
    const Turn turn(*this);
    if (num_global_blocks < 0 || num_sliding_blocks < 0) refuse("the number of blocks cannot be negative.");
    kv_.allocate(num_global_blocks, num_sliding_blocks);
}

void Model::copy_block(int source, int target, bool sliding) {
    const Turn turn(*this);
    check_pool({source, target}, sliding);
    kv_.copy(source, target, sliding);
}

void Model::release_blocks(const std::vector<int32_t>& blocks, bool sliding) {
    const Turn turn(*this);
    check_pool(blocks, sliding);
    for (size_t first = 0, last; first < blocks.size(); first = last) {
        for (last = first + 1; last < blocks.size() && blocks[last] == blocks[last - 1] + 1;) ++last;
        kv_.release(blocks[first], int(last - first), sliding);
    }
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
    check_pool(segment.global_blocks, false);
    check_pool(segment.sliding_blocks, true);
}

void Model::check_pool(const std::vector<int32_t>& blocks, bool sliding) const {
    for (const int32_t block : blocks)
        if (block < 0 || block >= kv_.num_blocks(sliding))
            refuse((sliding ? "sliding block " : "global block ") + std::to_string(block) + " does not exist.");
}

void Model::begin(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments, InputSquares* observer) {
    step_.begin(token_ids, segments, observer);
    global_rope_.extend(step_.last_position);
    sliding_rope_.extend(step_.last_position);
    attention_.plan(segments);
}

}  // namespace gemma3
