#include "quantize.h"

#include <algorithm>
#include <cmath>

#include "buffers.h"

namespace gemma3 {
namespace {

constexpr int kLowest4 = -8, kHighest4 = 7;

float largest(const float* row, int size) {
    float peak = 0;
    for (int i = 0; i < size; ++i) peak = std::max(peak, std::fabs(row[i]));
    return peak;
}

inline float rounded(float x) { return x + kRounder - kRounder; }

// Where a weight of row `row` lies in int8 panels of `num_inputs` (padded) inputs.
size_t offset_of(int row, int input, int num_inputs) {
    return size_t(row / kPanel) * size_t(kPanel * num_inputs) + size_t(byte_offset(row % kPanel, input));
}

// Bytes as int8 panels have them to nibble panels: of each the 4 bits from `shift` on.
std::vector<uint8_t> pack_nibbles(const std::vector<uint8_t>& bytes, int shift) {
    std::vector<uint8_t> packed(bytes.size() / 2);
    for (size_t i = 0; i < packed.size(); ++i) {
        const size_t low = i / kLine * (2 * kLine) + i % kLine, high = low + kLine;
        packed[i] = static_cast<uint8_t>((bytes[low] >> shift & 15) | (bytes[high] >> shift & 15) << 4);
    }
    return packed;
}

inline float nibble_of(float x) { return std::min(std::max(rounded(x), float{kLowest4}), float{kHighest4}); }

float squared_error(const float* group, float inverse, int multiplier) {
    const float step = static_cast<float>(multiplier), per_step = inverse / step;
    float errors[16] = {};
    for (int i = 0; i < kGroup; i += 16)
        for (int k = 0; k < 16; ++k) {
            const float difference = group[i + k] * inverse - nibble_of(group[i + k] * per_step) * step;
            errors[k] += difference * difference;
        }
    float error = 0;
    for (const float part : errors) error += part;
    return error;
}

// The multiplier with the least squared error. The best cuts off a little of a group's largest weights at most, so only those
// that reach from 5 / 8 of the largest to all of it are tried.
int best_multiplier(const float* group, float inverse) {
    const float peak = largest(group, kGroup) * inverse;
    const int last = std::clamp(static_cast<int>(std::ceil(peak / kHighest4)), 1, kMaxMultiplier);
    int best = last;
    float least = squared_error(group, inverse, last);
    for (int multiplier = std::max(1, last * 5 / 8); multiplier < last; ++multiplier) {
        const float error = squared_error(group, inverse, multiplier);
        if (error < least) {
            least = error;
            best = multiplier;
        }
    }
    return best;
}

// Calls pack(row, x, peak) for each row: x is the row rotated and padded with zeros, peak its largest magnitude.
template <typename Pack>
void for_each_rotated(const Kernels& kernels, const float* rows, int num_rows, int num_inputs, const Pack& pack) {
    Buffer<float> x(round_up(num_inputs, kGroup));
    for (int row = 0; row < num_rows; ++row) {
        std::copy_n(rows + int64_t{row} * num_inputs, num_inputs, x.data());
        kernels.rotate(x.data(), num_inputs, rotation_of(num_inputs));
        pack(row, x.data(), largest(x.data(), num_inputs));
    }
}

}  // namespace

int rotation_of(int num_inputs) {
    int rotation = 1;
    while (rotation < 128 && num_inputs % (2 * rotation) == 0) rotation *= 2;
    return rotation;
}

PackedRows quantize_int8(const Kernels& kernels, const float* rows, int num_rows, int num_inputs) {
    const int padded_rows = round_up(num_rows, kPanel), padded = round_up(num_inputs, kGroup);
    PackedRows packed;
    packed.panels.assign(size_t(padded_rows) * size_t(padded), kByteOffset);
    packed.scales.assign(size_t(padded_rows), 0.0f);
    for_each_rotated(kernels, rows, num_rows, num_inputs, [&](int row, const float* x, float peak) {
        const float inverse = peak > kNothing ? 127.0f / peak : 0.0f;
        packed.scales[size_t(row)] = peak / 127.0f;
        for (int i = 0; i < num_inputs; ++i)
            packed.panels[offset_of(row, i, padded)] = uint8_t(int(rounded(x[i] * inverse)) + kByteOffset);
    });
    return packed;
}

PackedRows quantize_embedding(const Kernels& kernels, const float* rows, int num_rows, int num_inputs) {
    PackedRows packed = quantize_int8(kernels, rows, num_rows, num_inputs);
    packed.low = pack_nibbles(packed.panels, 0);
    packed.panels = pack_nibbles(packed.panels, 4);
    return packed;
}

PackedRows quantize_int4(const Kernels& kernels, const float* rows, int num_rows, int num_inputs) {
    const int padded_rows = round_up(num_rows, kPanel), padded = round_up(num_inputs, kGroup), groups = padded / kGroup;
    std::vector<uint8_t> nibbles(size_t(padded_rows) * size_t(padded), kNibbleOffset);
    PackedRows packed;
    packed.multipliers.assign(size_t(padded_rows) * size_t(groups), 1);
    packed.scales.assign(size_t(padded_rows), 0.0f);
    for_each_rotated(kernels, rows, num_rows, num_inputs, [&](int row, const float* x, float peak) {
        const float scale = peak / (kHighest4 * kMaxMultiplier), inverse = peak > kNothing ? 1.0f / scale : 0.0f;
        packed.scales[size_t(row)] = scale;
        for (int group = 0; group < groups; ++group) {
            const int multiplier = best_multiplier(x + group * kGroup, inverse);
            packed.multipliers[size_t((row / kPanel * groups + group) * kPanel + row % kPanel)] = uint8_t(multiplier);
            const float per_step = inverse / static_cast<float>(multiplier);
            for (int i = group * kGroup; i < (group + 1) * kGroup; ++i)
                nibbles[offset_of(row, i, padded)] = uint8_t(int(nibble_of(x[i] * per_step)) + kNibbleOffset);
        }
    });
    packed.panels = pack_nibbles(nibbles, 0);
    return packed;
}

}  // namespace gemma3
