// Which token is chosen from logits: the largest, or a draw among those that top_k, top_p and min_p leave.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "logits.h"
#include "row_request.h"

namespace gemma3 {

// The logits that a mask allows, in the order of their ids.
class AllowedLogits {
public:
    // Forget all, and have room for `count`.
    void begin(int count);
    // Those of a panel's logits whose bits are set; the others are not read beyond the highest bit.
    void add(int panel, uint32_t bits, const float* logits);
    // Where the logit of an id lies; null if it is not allowed.
    float* find(int32_t id);
    Logits row() const { return {values_.data(), ids_.data(), size_}; }

private:
    std::vector<float> values_;
    std::vector<int32_t> ids_;
    int size_ = 0;
};

// The order of ids and their logits.
inline bool is_likelier(const std::pair<int32_t, float>& a, const std::pair<int32_t, float>& b) {
    return a.second > b.second || (a.second == b.second && a.first < b.first);
}

// Memory that is used again for every row of a thread.
struct SamplingScratch {
    AllowedLogits allowed;
    std::vector<float> block_peaks;    // largest logit of each block of ids
    std::vector<float> ordered_peaks;
    std::vector<double> block_masses;  // sum of the weights of each block
    std::vector<double> bin_masses;
    std::vector<float> values;  // logits that are still in the running
    std::vector<int32_t> ids;   // and whose they are
    std::vector<std::pair<int32_t, float>> ordered;
    std::vector<std::pair<int32_t, float>> raw_logits;  // of the ids whose logits were adjusted
};

struct Peak {
    float logit;
    bool is_finite;  // false: a logit is NaN, or the largest is infinite, or there is none
};

// The `count`-th largest of the logits above -inf; -inf if there are fewer. `values` is memory for them.
float nth_largest(Logits row, int count, std::vector<float>& values);
// Fills `block_peaks`.
Peak find_peak(Logits row, SamplingScratch& scratch);
// Fills `block_masses` and returns their sum.
double find_mass(Logits row, const Distribution& distribution, SamplingScratch& scratch);
// At least the `count` >= 1 largest logits above -inf, and few more unless `count` is large. Needs `block_peaks`.
Logits gather_largest(Logits row, int count, SamplingScratch& scratch);
// Steps 4 to 6 of the definition for a row whose largest logit is finite. Needs `block_peaks`.
int32_t choose(Logits row, const RowRequest& request, float peak, SamplingScratch& scratch);

}  // namespace gemma3
