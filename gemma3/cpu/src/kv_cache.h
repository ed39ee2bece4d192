// Keys and values of all sequences, in blocks of 16 tokens that the engine hands out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "buffers.h"

namespace gemma3 {

// A block holds, for each KV head, the keys as [head_dim / 2][16 tokens][2] and the values as [16 / 2][head_dim][2], bfloat16:
// a line of 64 bytes has two dimensions of 16 keys, or two tokens of 16 dimensions, as the products of attention read them.
class KvCache {
public:
    KvCache(int num_kv_heads, int head_dim, const std::vector<bool>& is_sliding)
        : num_kv_heads_(num_kv_heads), head_dim_(head_dim), is_sliding_(is_sliding), layers_(is_sliding.size()) {}

    // All that was there is forgotten.
    void allocate(int num_global_blocks, int num_sliding_blocks) {
        num_global_ = num_global_blocks;
        num_sliding_ = num_sliding_blocks;
        for (size_t i = 0; i < layers_.size(); ++i) {
            layers_[i] = Buffer<uint16_t>();
            layers_[i].reserve(num_blocks(is_sliding_[i]) * num_kv_heads_ * block_size());
        }
    }

    // Of the pool of the sliding or of the global layers.
    int64_t num_blocks(bool sliding) const { return sliding ? num_sliding_ : num_global_; }
    // A block's keys and values, laid out as above.
    const uint16_t* keys(int layer, int block, int kv_head) const {
        return layers_[size_t(layer)].data() + offset_of(block, kv_head);
    }
    const uint16_t* values(int layer, int block, int kv_head) const { return keys(layer, block, kv_head) + block_size() / 2; }

    // A token's key and value (head_dim each) into one of the 16 slots of a block.
    void write(int layer, int block, int kv_head, int slot, const uint16_t* key, const uint16_t* value) {
        uint16_t* start = layers_[size_t(layer)].data() + offset_of(block, kv_head);
        uint16_t* k = start + 2 * slot;
        uint16_t* v = start + block_size() / 2 + int64_t{slot / 2} * 2 * head_dim_ + slot % 2;
        for (int d = 0; d < head_dim_; d += 2) {
            k[d * kBlockSize] = key[d];
            k[d * kBlockSize + 1] = key[d + 1];
        }
        for (int d = 0; d < head_dim_; ++d) v[2 * d] = value[d];
    }

    // `count` blocks of a pool from `first` on lose what they hold, and need no memory until they are written.
    void release(int first, int count, bool sliding) {
        const int64_t size = num_kv_heads_ * block_size();
        for (size_t i = 0; i < layers_.size(); ++i)
            if (is_sliding_[i] == sliding) layers_[i].release(first * size, count * size);
    }

    // What block `source` of a pool holds in all its layers, into block `target`.
    void copy(int source, int target, bool sliding) {
        for (size_t i = 0; i < layers_.size(); ++i)
            if (is_sliding_[i] == sliding && source != target)
                std::copy_n(layers_[i].data() + offset_of(source, 0), num_kv_heads_ * block_size(),
                            layers_[i].data() + offset_of(target, 0));
    }

private:
    int64_t block_size() const { return int64_t{2} * kBlockSize * head_dim_; }
    int64_t offset_of(int block, int kv_head) const { return (int64_t{block} * num_kv_heads_ + kv_head) * block_size(); }

    const int num_kv_heads_, head_dim_;
    const std::vector<bool> is_sliding_;
    int num_global_ = 0, num_sliding_ = 0;
    std::vector<Buffer<uint16_t>> layers_;
};

}  // namespace gemma3
