// Attention of a ragged batch over the blocks of the KV cache.
#pragma once

#include <cstdint>
#include <vector>

#include "buffers.h"
#include "kv_cache.h"
#include "thread_team.h"

namespace gemma3 {

// One sequence's rows of a step: its tokens [start_position, start_position + num_tokens).
struct Segment {
    int start_position = 0;
    int num_tokens = 0;
    std::vector<int32_t> global_blocks;   // position p lies in global_blocks[p / 16]
    std::vector<int32_t> sliding_blocks;  // and in sliding_blocks[p / 16 - first_sliding_block]
    int first_sliding_block = 0;
};

struct AttentionShape {
    int num_heads, num_kv_heads, head_dim;
    int padded_head_dim;  // to 32: of queries, keys and values, where the rest is zero
    int window;           // of the sliding layers
};

// Keys are taken in chunks of kKeyChunk, counted from position 0, and a row's chunks are merged in order: so the result does
// not depend on how the work is cut into items. Few rows are cut by chunk too, so that all threads have work.
class Attention {
public:
    Attention(const Kernels& kernels, AttentionShape shape, int num_threads);

    // Lay out the work of a step; the segments must live until its last layer is done.
    void plan(const std::vector<Segment>& segments);

    // The work of a layer: any thread may run any item [0, num_items). `queries` (num_heads, padded head_dim) bfloat16, scaled;
    // `out` (num_heads, head_dim) float32. When all are done, `finish_row` must still be called for every row.
    int num_items(bool sliding) const { return int(plans_[sliding].items.size()); }
    void run_item(const KvCache& cache, int layer, bool sliding, int item, Rows<const uint16_t> queries, Rows<float> out,
                  int thread);
    // Merges the chunks of a row, if the rows were cut by chunk; else nothing.
    void finish_row(bool sliding, int row, float* out, int thread);

private:
    struct Item {
        const Segment* segment;
        int first_row, first_position, num_tokens, kv_head;
        int first_chunk, last_chunk;
        int64_t partial;  // index of the item's first row of partial results; -1: it does all chunks by itself
    };
    struct Plan {
        std::vector<Item> items;
        std::vector<std::vector<int>> items_of_row;  // when cut by chunk, in order of kv_head, chunk
    };
    struct Scratch {
        Buffer<uint16_t> queries;
        Buffer<float> out, merged;
        float peaks[kMaxRows], totals[kMaxRows], merged_peaks[kMaxRows], merged_totals[kMaxRows];
    };

    // Of all segments, for the sliding or the global layers.
    Plan make_plan(const std::vector<Segment>& segments, bool sliding) const;
    // The first position that a token of this position sees.
    int first_key(bool sliding, int position) const;
    // An item's rows with one chunk of keys, into what `QueryRows` points at.
    void attend_chunk(const KvCache&, int layer, bool sliding, const Item&, int chunk, const QueryRows&) const;
    // sums / total, the output (head_dim) of one query head.
    void store_head(float* out, const float* sums, float total) const;

    const Kernels& kernels_;
    const AttentionShape shape_;
    const int group_;            // query heads that share a KV head
    const int tokens_per_item_;
    const int num_threads_;
    Plan plans_[2];
    std::vector<Scratch> scratch_;
    Buffer<float> partial_out_, partial_peaks_, partial_totals_;
    Buffer<uint16_t> zeros_;  // stands in for blocks that slid out of the window
};

}  // namespace gemma3
