#include "attention.h"

#include <algorithm>
#include <cmath>

namespace gemma3 {

Attention::Attention(const Kernels& kernels, AttentionShape shape, int num_threads)
    : kernels_(kernels),
      shape_(shape),
      group_(shape.num_heads / shape.num_kv_heads),
      tokens_per_item_(std::max(1, kMaxRows / group_)),
      num_threads_(num_threads),
      scratch_(size_t(num_threads)),
      zeros_(int64_t{kBlockSize} * shape.padded_head_dim) {
    for (Scratch& scratch : scratch_) {
        scratch.queries.reserve(int64_t{kMaxRows} * shape.padded_head_dim);
        scratch.out.reserve(int64_t{kMaxRows} * shape.padded_head_dim);
        scratch.merged.reserve(int64_t{kMaxRows} * shape.padded_head_dim);
    }
}

void Attention::plan(const std::vector<Segment>& segments) {
    int64_t num_partial = 0;
    for (const bool sliding : {false, true}) {
        plans_[sliding] = make_plan(segments, sliding);
        for (const Item& item : plans_[sliding].items)
            num_partial = std::max(num_partial, item.partial + item.num_tokens * group_);
    }
    partial_out_.reserve(num_partial * shape_.padded_head_dim);
    partial_peaks_.reserve(num_partial);
    partial_totals_.reserve(num_partial);
}

int Attention::first_key(bool sliding, int position) const {
    return sliding ? std::max(0, position - shape_.window + 1) : 0;
}

Attention::Plan Attention::make_plan(const std::vector<Segment>& segments, bool sliding) const {
    Plan plan;
    int row = 0;
    for (const Segment& segment : segments) {
        for (int done = 0; done < segment.num_tokens; done += tokens_per_item_) {
            const int num_tokens = std::min(tokens_per_item_, segment.num_tokens - done);
            const int position = segment.start_position + done;
            const int first = first_key(sliding, position) / kKeyChunk, last = (position + num_tokens - 1) / kKeyChunk + 1;
            for (int head = 0; head < shape_.num_kv_heads; ++head)
                plan.items.push_back({&segment, row + done, position, num_tokens, head, first, last, -1});
        }
        row += segment.num_tokens;
    }
    if (int(plan.items.size()) >= 4 * num_threads_) return plan;
    // Few items: one for each chunk.
    std::vector<Item> whole;
    whole.swap(plan.items);
    plan.items_of_row.resize(size_t(row));
    int64_t partial = 0;
    for (Item item : whole)
        for (int chunk = item.first_chunk, last = item.last_chunk; chunk < last; ++chunk) {
            item.first_chunk = chunk;
            item.last_chunk = chunk + 1;
            item.partial = partial;
            partial += item.num_tokens * group_;
            for (int token = 0; token < item.num_tokens; ++token)
                plan.items_of_row[size_t(item.first_row + token)].push_back(int(plan.items.size()));
            plan.items.push_back(item);
        }
    return plan;
}

void Attention::attend_chunk(const KvCache& cache, int layer, bool sliding, const Item& item, int chunk,
                             const QueryRows& rows) const {
    const Segment& segment = *item.segment;
    const std::vector<int32_t>& table = sliding ? segment.sliding_blocks : segment.global_blocks;
    const int first_block = sliding ? segment.first_sliding_block : 0;
    const int last_key = item.first_position + item.num_tokens, chunk_start = chunk * kKeyChunk;
    KeyBlocks blocks;
    blocks.num_blocks = (std::min(last_key - chunk_start, kKeyChunk) + kBlockSize - 1) / kBlockSize;
    for (int b = 0; b < blocks.num_blocks; ++b) {
        const int index = chunk_start / kBlockSize + b - first_block;
        blocks.keys[b] = index < 0 ? zeros_.data() : cache.keys(layer, table[size_t(index)], item.kv_head);
        blocks.values[b] = index < 0 ? zeros_.data() : cache.values(layer, table[size_t(index)], item.kv_head);
    }
    KeyRange ranges[kMaxRows];
    for (int token = 0; token < item.num_tokens; ++token) {
        const int position = item.first_position + token;
        const KeyRange range{std::clamp(first_key(sliding, position) - chunk_start, 0, kKeyChunk),
                             std::clamp(position + 1 - chunk_start, 0, kKeyChunk)};
        for (int g = 0; g < group_; ++g) ranges[token * group_ + g] = range;
    }
    kernels_.attend(rows, blocks, ranges);
}

void Attention::run_item(const KvCache& cache, int layer, bool sliding, int index, Rows<const uint16_t> queries,
                         Rows<float> out, int thread) {
    const Item& item = plans_[sliding].items[size_t(index)];
    Scratch& scratch = scratch_[size_t(thread)];
    const int padded = shape_.padded_head_dim, num_rows = item.num_tokens * group_;
    for (int token = 0; token < item.num_tokens; ++token)
        std::copy_n(queries.row(item.first_row + token) + item.kv_head * group_ * padded, group_ * padded,
                    scratch.queries.data() + int64_t{token} * group_ * padded);
    if (item.partial >= 0) {
        attend_chunk(cache, layer, sliding, item, item.first_chunk,
                     {scratch.queries.data(), partial_out_.data() + item.partial * padded,
                      partial_peaks_.data() + item.partial, partial_totals_.data() + item.partial, num_rows, padded});
        return;
    }
    const QueryRows rows{scratch.queries.data(), scratch.out.data(), scratch.peaks, scratch.totals, num_rows, padded};
    std::fill_n(scratch.merged.data(), int64_t{num_rows} * padded, 0.0f);
    std::fill_n(scratch.merged_peaks, num_rows, -INFINITY);
    std::fill_n(scratch.merged_totals, num_rows, 0.0f);
    for (int chunk = item.first_chunk; chunk < item.last_chunk; ++chunk) {
        attend_chunk(cache, layer, sliding, item, chunk, rows);
        for (int r = 0; r < num_rows; ++r)
            kernels_.merge(scratch.merged.data() + int64_t{r} * padded, scratch.merged_peaks[r], scratch.merged_totals[r],
                           rows.out + int64_t{r} * padded, rows.peaks[r], rows.totals[r], padded);
    }
    for (int r = 0; r < num_rows; ++r)
        store_head(out.row(item.first_row + r / group_) + (item.kv_head * group_ + r % group_) * shape_.head_dim,
                   scratch.merged.data() + int64_t{r} * padded, scratch.merged_totals[r]);
}

void Attention::finish_row(bool sliding, int row, float* out, int thread) {
    const Plan& plan = plans_[sliding];
    if (plan.items_of_row.empty()) return;
    const int padded = shape_.padded_head_dim;
    float* merged = scratch_[size_t(thread)].merged.data();
    const std::vector<int>& items = plan.items_of_row[size_t(row)];
    for (int head = 0; head < shape_.num_heads; ++head) {
        float peak = -INFINITY, total = 0;
        std::fill_n(merged, padded, 0.0f);
        for (const int index : items) {
            const Item& item = plan.items[size_t(index)];
            if (item.kv_head != head / group_) continue;
            const int64_t at = item.partial + (row - item.first_row) * group_ + head % group_;
            kernels_.merge(merged, peak, total, partial_out_.data() + at * padded, partial_peaks_[at],
                           partial_totals_[at], padded);
        }
        store_head(out + head * shape_.head_dim, merged, total);
    }
}

void Attention::store_head(float* out, const float* sums, float total) const {
    const float factor = 1.0f / total;
    for (int i = 0; i < shape_.head_dim; ++i) out[i] = sums[i] * factor;
}

}  // namespace gemma3
