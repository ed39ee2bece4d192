// The ids that a row may choose, as bits: id i is bit i % 32 of word i / 32. Two panels of the head make up a word.
#pragma once

#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/panels.h"

namespace gemma3 {

class TokenMask {
public:
    TokenMask() = default;  // allows every id
    // Ids beyond the last word are not allowed. No words at all allow every id.
    explicit TokenMask(std::vector<uint32_t> words) : words_(std::move(words)) {
        for (const uint32_t word : words_) {
            num_ids_ += std::popcount(word);
            num_panels_ += ((word & kWhole) != 0) + (word >> kPanel != 0);
        }
    }

    bool restricts() const { return !words_.empty(); }
    const std::vector<uint32_t>& words() const { return words_; }
    // How many ids are allowed, and how many panels have one. 0 if the mask does not restrict.
    int num_ids() const { return num_ids_; }
    int num_panels() const { return num_panels_; }

    // The 16 bits of a panel, the lowest for its first id.
    uint32_t of_panel(int panel) const {
        const size_t word = size_t(panel) / kWordPanels;
        return word < words_.size() ? words_[word] >> shift(panel) & kWhole : 0;
    }
    // In rising order: item(panel, bits) of each panel with an allowed id.
    template <typename Item>
    void for_each_panel(const Item& item) const {
        for (int word = 0; word < int(words_.size()); ++word) {
            if (words_[size_t(word)] == 0) continue;
            for (int panel = word * kWordPanels; panel < (word + 1) * kWordPanels; ++panel)
                if (const uint32_t bits = of_panel(panel)) item(panel, bits);
        }
    }
    // Whether every allowed id is below `vocab_size`, and there are no more words than it needs.
    bool fits(int vocab_size) const {
        const int64_t num_beyond = int64_t(words_.size()) * kWordBits - vocab_size;
        return num_beyond <= 0 || (num_beyond < kWordBits && words_.back() >> (kWordBits - num_beyond) == 0);
    }

    static constexpr uint32_t kWhole = (1u << kPanel) - 1;  // every id of a panel

private:
    static constexpr int kWordBits = 32;
    static constexpr int kWordPanels = kWordBits / kPanel;

    static int shift(int panel) { return panel % kWordPanels * kPanel; }

    std::vector<uint32_t> words_;
    int num_ids_ = 0;
    int num_panels_ = 0;
};

}  // namespace gemma3
