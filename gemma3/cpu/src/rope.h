// Cosines and sines of the rotary embedding, for positions up to the furthest asked for so far.
#pragma once

#include <vector>

namespace gemma3 {

// A position's angle is the sum of two, of (64 i) and of (0 .. 63) times a frequency, so the tables stay small.
class RopeTable {
public:
    RopeTable(double theta, int head_dim) : theta_(theta), head_dim_(head_dim) {}

    // Make `angles` known for the positions [0, last_position]. Not while other threads read.
    void extend(int last_position);
    // Cosines and sines (head_dim / 2 each) of one position.
    void angles(int position, float* cosines, float* sines) const;

private:
    void add_position(int position, std::vector<float>& cosines, std::vector<float>& sines) const;

    const double theta_;
    const int head_dim_;
    int num_far_ = 0;
    std::vector<float> far_cos_, far_sin_, near_cos_, near_sin_;  // (positions, head_dim / 2)
};

}  // namespace gemma3
