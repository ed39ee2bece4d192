// Logits to a token, for one row: the native twin of engine/runners/torch_sampler.py, by the definition in engine/sampling_params.py.
//
// A row's result depends on that row alone, bit for bit: not on the instruction set, vector width or its neighbours.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "candidates.h"
#include "row_request.h"

namespace gemma3 {

struct Sampled {
    int32_t token_id = -1;  // the chosen token, or the target; -1 if nothing can be chosen
    bool is_finite = true;  // false: a logit is NaN, or the largest is infinite; of what can be chosen, unless there is a target
    float logprob = 0;      // of `token_id`, before anything is adjusted; NaN if those logits are not finite
    int32_t rank = 0;       // of the target among all ids, the likeliest being 1, ties by id; 0 unless asked for
    std::vector<std::pair<int32_t, float>> top;  // the likeliest ids and their log probabilities, ties by id; or `reported`
};

// `logits` are `vocab_size` float32 and are adjusted in place. The request must be valid; throws nothing but bad_alloc.
Sampled sample(float* logits, int vocab_size, const RowRequest& request, SamplingScratch& scratch);
// The same in two steps for a request that reports nothing, from some of the logits that it allows, among them all that can be
// chosen: these are adjusted, then the token is chosen from those in `scratch.allowed`.
void adjust_allowed(const RowRequest& request, AllowedLogits& allowed);
Sampled choose_allowed(const RowRequest& request, SamplingScratch& scratch);

// The `count` likeliest of a row and their log probabilities, likeliest first. Changes nothing of `scratch.allowed`.
std::vector<std::pair<int32_t, float>> likeliest(Logits row, int count, double log_mass, SamplingScratch& scratch);
inline float logprob_of(float logit, double log_mass) { return static_cast<float>(static_cast<double>(logit) - log_mass); }

}  // namespace gemma3
