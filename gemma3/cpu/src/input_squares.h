// What calibration learns of a model: how large the inputs of each matrix are, by channel.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace gemma3 {

// Given to a step, it sees each row that enters a matrix. One thread's alone, so that the sums have one order.
class InputSquares {
public:
    // `x` (size) enters the matrix of this name.
    void add(const std::string& matrix, const float* x, int size) {
        std::vector<float>& sums = sums_[matrix];
        sums.resize(size_t(size));
        for (int i = 0; i < size; ++i) sums[size_t(i)] += x[i] * x[i];
    }

    // By matrix, the mean squares by channel over `num_rows` rows.
    std::map<std::string, std::vector<float>> means(int num_rows) const {
        std::map<std::string, std::vector<float>> means = sums_;
        for (auto& [name, squares] : means)
            for (float& square : squares) square /= static_cast<float>(num_rows);
        return means;
    }

private:
    std::map<std::string, std::vector<float>> sums_;
};

}  // namespace gemma3
