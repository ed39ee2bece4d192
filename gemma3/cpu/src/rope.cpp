#include "rope.h"

#include <cmath>
#include <cstdint>

namespace gemma3 {

constexpr int kStride = 64;

void RopeTable::extend(int last_position) {
    if (num_far_ == 0)
        for (int i = 0; i < kStride; ++i) add_position(i, near_cos_, near_sin_);
    for (; num_far_ < last_position / kStride + 1; ++num_far_) add_position(num_far_ * kStride, far_cos_, far_sin_);
}

void RopeTable::add_position(int position, std::vector<float>& cosines, std::vector<float>& sines) const {
    for (int i = 0; i < head_dim_ / 2; ++i) {
        // The frequency is a float32, as in the reference.
        const float frequency = 1.0f / static_cast<float>(std::pow(theta_, 2.0 * i / head_dim_));
        cosines.push_back(static_cast<float>(std::cos(position * double{frequency})));
        sines.push_back(static_cast<float>(std::sin(position * double{frequency})));
    }
}

void RopeTable::angles(int position, float* cosines, float* sines) const {
    const int half = head_dim_ / 2;
    const int64_t far = int64_t{position / kStride} * half, near = int64_t{position % kStride} * half;
    const float *far_cos = far_cos_.data() + far, *far_sin = far_sin_.data() + far;
    const float *near_cos = near_cos_.data() + near, *near_sin = near_sin_.data() + near;
    for (int i = 0; i < half; ++i) {
        cosines[i] = far_cos[i] * near_cos[i] - far_sin[i] * near_sin[i];
        sines[i] = far_sin[i] * near_cos[i] + far_cos[i] * near_sin[i];
    }
}

}  // namespace gemma3
