#include "row_request.h"

#include <stdexcept>
#include <string>

namespace gemma3 {
namespace {

void check_id(const char* field, int32_t id, int vocab_size) {
    if (id >= 0 && id < vocab_size) return;
    throw std::invalid_argument(std::string(field) + "=" + std::to_string(id) + " is not allowed: an id from 0 to " +
                                std::to_string(vocab_size - 1) + ".");
}

}  // namespace

bool RowRequest::adjusts() const {
    const bool repeats = repetition_penalty != 1 && !seen.empty();
    const bool counts = (frequency_penalty != 0 || presence_penalty != 0) && !output_counts.empty();
    return repeats || counts || !logit_bias.empty() || !banned.empty();
}

void RowRequest::validate(int vocab_size) const {
    for (const int32_t id : seen) check_id("seen", id, vocab_size);
    for (const auto& [id, count] : output_counts) check_id("output_counts", id, vocab_size);
    for (const auto& [id, bias] : logit_bias) check_id("logit_bias", id, vocab_size);
    for (const int32_t id : banned) check_id("banned", id, vocab_size);
    for (const int32_t id : reported) check_id("reported", id, vocab_size);
    if (has_target()) check_id("target", target, vocab_size);
    if (!allowed.fits(vocab_size))
        throw std::invalid_argument("allowed has a bit or a word beyond the " + std::to_string(vocab_size) + " ids.");
}

}  // namespace gemma3
