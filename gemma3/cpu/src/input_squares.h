// What calibration learns of a model: how large the inputs of each matrix are, by channel.
#pragma once

#include <algorithm>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "buffers.h"
#include "weights.h"

namespace gemma3 {

// Given to the steps of one text, it keeps each row that enters a matrix, and adds them up after the step in the order of the
// text: the sums are the same bits for any number of threads and however the text is cut.
class InputSquares {
public:
    // For steps of up to `max_rows` rows; `weights` must live as long.
    InputSquares(const Weights& weights, int max_rows) {
        for (const Layer& layer : weights.layers)
            for (const Linear* linear : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) make_room(*linear, max_rows);
        make_room(weights.head, max_rows);
    }

    // `x` (linear.num_inputs) enters the matrix, as row `row` of the step. Any thread, each row once.
    void keep(const Linear& linear, const float* x, int row) {
        Inputs& inputs = inputs_.at(linear.name);
        std::copy_n(x, inputs.sums.size(), inputs.rows.row(row));
    }

    int num_matrices() const { return int(inputs_.size()); }

    // Adds the first `num_rows` rows that one matrix was given. Any thread, each matrix once a step.
    void add(int matrix, int num_rows) {
        auto& [rows, sums] = std::next(inputs_.begin(), matrix)->second;
        for (int row = 0; row < num_rows; ++row) {
            const float* x = rows.row(row);
            for (size_t i = 0; i < sums.size(); ++i) sums[i] += x[i] * x[i];
        }
    }

    // By matrix, the mean squares by channel over a text of `num_tokens`.
    std::map<std::string, std::vector<float>> means(int num_tokens) const {
        std::map<std::string, std::vector<float>> means;
        for (const auto& [name, inputs] : inputs_)
            for (const float sum : inputs.sums) means[name].push_back(sum / static_cast<float>(num_tokens));
        return means;
    }

private:
    struct Inputs {
        RowBuffer<float> rows;
        std::vector<float> sums;
    };

    void make_room(const Linear& linear, int max_rows) {
        Inputs inputs{RowBuffer<float>(linear.num_inputs), std::vector<float>(size_t(linear.num_inputs))};
        inputs.rows.reserve(max_rows);
        inputs_.emplace(linear.name, std::move(inputs));
    }

    std::map<std::string, Inputs> inputs_;
};

}  // namespace gemma3
