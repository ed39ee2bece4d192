// Logits to a token, for one row: the native twin of engine/runners/torch_sampler.py, by the definition in engine/sampling_params.py.
//
// A row's result depends on that row alone, bit for bit: not on the instruction set, vector width or its neighbours.
#pragma once

#include <cfloat>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

namespace gemma3 {

// The settings of engine/sampling_params.py that shape a row, by their names there: type, name, and the value that changes
// nothing, with which a token is chosen greedily. Members and Python attributes are made from this list.
#define GEMMA3_ROW_SETTINGS(SETTING)     \
    SETTING(float, repetition_penalty, 1) \
    SETTING(float, frequency_penalty, 0)  \
    SETTING(float, presence_penalty, 0)   \
    SETTING(float, temperature, 0)        \
    SETTING(int32_t, top_k, 0)            \
    SETTING(float, top_p, 1)              \
    SETTING(float, min_p, 0)

// A number from Python as a setting. A positive one stays positive: it must not become 0, or lose bits, for want of exponent.
template <typename Number>
Number setting_of(double value) {
    if (std::is_floating_point_v<Number> && value > 0 && value < double{FLT_MIN}) return static_cast<Number>(FLT_MIN);
    return static_cast<Number>(value);
}

// A row of a step whose logits are wanted, and how its token is chosen from them.
struct RowRequest {
    int row = 0;
#define GEMMA3_MEMBER(Type, name, neutral) Type name = neutral;
    GEMMA3_ROW_SETTINGS(GEMMA3_MEMBER)
#undef GEMMA3_MEMBER
    double uniform = 0;                                     // u in [0, 1)
    std::vector<int32_t> seen;                              // distinct ids of prompt and output
    std::vector<std::pair<int32_t, int32_t>> output_counts; // distinct ids of the output, and how often each is there
    std::vector<std::pair<int32_t, float>> logit_bias;      // ids, and what is added to their logits
    std::vector<int32_t> banned;                            // cannot be chosen
    std::vector<int32_t> allowed;                           // nothing else can be chosen; in rising order; empty: everything
    std::vector<int32_t> reported;  // whose log probabilities to report instead of the likeliest, with `num_logprobs` >= 0
    int num_logprobs = -1;  // how many of the likeliest to report; -1: no log probabilities at all
    int32_t target = -1;    // >= 0: choose nothing, report this token's log probability
    bool wants_rank = false;  // of the target

    // Whether the logits are changed before the choice.
    bool adjusts() const;
    // Whether the lowest id of the largest logit is the whole answer, so that nobody need see the other logits.
    bool is_plain_greedy() const;
    // Throws std::invalid_argument if an id is outside the vocabulary, or the allowed ones are out of order.
    void validate(int vocab_size) const;
};

struct Sampled {
    int32_t token_id = -1;  // the chosen token, or the target; -1 if nothing can be chosen
    bool is_finite = true;  // false: a logit is NaN, or the largest is infinite
    float logprob = 0;      // of `token_id`, before anything is adjusted; NaN if those logits are not finite
    int32_t rank = 0;       // of the target among all ids, the likeliest being 1, ties by id; 0 unless asked for
    std::vector<std::pair<int32_t, float>> top;  // the likeliest ids and their log probabilities, ties by id; or `reported`
};

// Memory that is used again for every row of a thread.
struct SamplingScratch {
    std::vector<float> block_peaks;    // largest logit of each block of ids
    std::vector<float> ordered_peaks;
    std::vector<double> block_masses;  // sum of the weights of each block
    std::vector<double> bin_masses;
    std::vector<float> values;  // logits that are still in the running
    std::vector<int32_t> ids;   // and whose they are
    std::vector<std::pair<int32_t, float>> ordered;
    std::vector<std::pair<int32_t, float>> raw_logits;  // of the ids whose logits were adjusted
};

// `logits` are `vocab_size` float32 and are adjusted in place. The request must be valid; throws nothing but bad_alloc.
Sampled sample(float* logits, int vocab_size, const RowRequest& request, SamplingScratch& scratch);

}  // namespace gemma3
