// What is asked of one row of a step.
#pragma once

#include <cfloat>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "token_mask.h"

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
    TokenMask allowed;                                      // nothing else can be chosen
    std::vector<int32_t> reported;  // whose log probabilities to report instead of the likeliest, with `num_logprobs` >= 0
    int num_logprobs = -1;  // how many of the likeliest to report; -1: no log probabilities at all
    int32_t target = -1;    // >= 0: choose nothing, report this token's log probability
    bool wants_rank = false;  // of the target

    bool has_target() const { return target >= 0; }
    // Whether log probabilities are wanted, so that every logit must be known.
    bool reports() const { return has_target() || num_logprobs >= 0; }
    // Whether the logits are changed before the choice.
    bool adjusts() const;
    // item(id) of each id whose logit may grow before the choice; some come twice.
    template <typename Item>
    void for_each_raised(const Item& item) const {
        if (repetition_penalty < 1)
            for (const int32_t id : seen) item(id);
        for (const auto& [id, count] : output_counts)
            if (penalty(count) < 0) item(id);
        for (const auto& [id, bias] : logit_bias)
            if (bias > 0) item(id);
    }
    // What is taken off the logit of an id of the output.
    float penalty(int32_t count) const { return frequency_penalty * static_cast<float>(count) + presence_penalty; }
    // How many of the likeliest ids the token is chosen from: one, or `top_k` with a temperature; 0: any of them.
    int num_best() const { return temperature > 0 ? top_k : 1; }
    // Throws std::invalid_argument if an id is outside the vocabulary.
    void validate(int vocab_size) const;
};

}  // namespace gemma3
