// What packing asks of a model: how large the inputs of its matrices are, over one text.
#include <algorithm>
#include <numeric>

#include "model.h"

namespace gemma3 {
namespace {

constexpr int kObservedRows = 64;  // of the text at a time: what they need stays small, and in the caches

}  // namespace

std::map<std::string, std::vector<float>> Model::observe_inputs(const std::vector<int32_t>& token_ids,
                                                                const std::function<void(int)>& progress) {
    const Turn turn(*this);
    const int num_tokens = int(token_ids.size());
    std::vector<int32_t> blocks(token_ids.size() / kBlockSize + 1);
    std::iota(blocks.begin(), blocks.end(), 0);
    kv_.allocate(int(blocks.size()), int(blocks.size()));
    validate(token_ids, {{0, num_tokens, blocks, blocks, 0}});
    InputSquares observer(weights_, std::min(kObservedRows, num_tokens));
    for (int start = 0; start < num_tokens; start += kObservedRows) {
        const int count = std::min(kObservedRows, num_tokens - start);
        const auto first = token_ids.begin() + start;
        observe({first, first + count}, {{start, count, blocks, blocks, 0}}, observer);
        progress(start + count);
    }
    kv_.allocate(0, 0);
    return observer.means(num_tokens);
}

void Model::observe(const std::vector<int32_t>& token_ids, const std::vector<Segment>& segments, InputSquares& observer) {
    begin(token_ids, segments, &observer);
    const int num_rows = step_.num_rows();
    Activations final_in = final_memory_.of(num_rows, weights_.head.matrix.num_inputs);
    team_.run([&](int thread) {
        forward(thread);
        team_.for_each(num_rows, [&](int row) {
            quantize_normed(row, weights_.final_norm, weights_.head, final_in, row, thread);
        });
        team_.for_each(observer.num_matrices(), [&](int matrix) { observer.add(matrix, num_rows); });
    });
}

}  // namespace gemma3
