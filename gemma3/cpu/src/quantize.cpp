#include "quantize.h"

#include <algorithm>
#include <cmath>

#include "buffers.h"

namespace gemma3 {
namespace {

constexpr int kLowest4 = -8, kHighest4 = 7, kMaxMultiplier = 15;

// One rotated row at a time, padded with zeros.
class RotatedRows {
public:
    RotatedRows(const Kernels& kernels, const float* rows, int num_inputs)
        : kernels_(kernels), rows_(rows), num_inputs_(num_inputs), row_(round_up(num_inputs, kGroup)) {}

    const float* operator[](int64_t index) {
        std::copy_n(rows_ + index * num_inputs_, num_inputs_, row_.data());
        kernels_.rotate(row_.data(), num_inputs_, rotation_of(num_inputs_));
        return row_.data();
    }

private:
    const Kernels& kernels_;
    const float* rows_;
    const int num_inputs_;
    Buffer<float> row_;
};

float largest(const float* row, int size) {
    float peak = 0;
    for (int i = 0; i < size; ++i) peak = std::max(peak, std::fabs(row[i]));
    return peak;
}

// Adding 1.5 * 2^23 rounds to an integer; unlike a call of nearbyint, compilers make vectors of it.
inline float rounded(float x) { return x + 12582912.0f - 12582912.0f; }

// Where input `i` of output `row` lies in int8 panels.
int64_t byte_offset(int row, int i, int num_inputs) {
    return int64_t{row / kPanel} * kPanel * num_inputs + int64_t{i / 4} * 64 + row % kPanel * 4 + i % 4;
}

// Bytes as int8 panels have them to nibble panels: line 2j to the low nibbles of line j, line 2j + 1 to the high ones.
std::vector<uint8_t> pack_nibbles(const std::vector<uint8_t>& bytes, int shift) {
    std::vector<uint8_t> packed(bytes.size() / 2);
    for (size_t i = 0; i < packed.size(); ++i) {
        const size_t at = i / 64 * 128 + i % 64;
        packed[i] = static_cast<uint8_t>((bytes[at] >> shift & 15) | (bytes[at + 64] >> shift & 15) << 4);
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

}  // namespace

int rotation_of(int num_inputs) {
    int rotation = 1;
    while (rotation < 128 && num_inputs % (2 * rotation) == 0) rotation *= 2;
    return rotation;
}

PackedRows quantize_int8(const Kernels& kernels, const float* rows, int num_rows, int num_inputs) {
    const int padded_rows = round_up(num_rows, kPanel), padded = round_up(num_inputs, kGroup);
    PackedRows packed;
    packed.panels.assign(size_t(padded_rows) * size_t(padded), 128);
    packed.scales.assign(size_t(padded_rows), 0.0f);
    RotatedRows rotated(kernels, rows, num_inputs);
    for (int row = 0; row < num_rows; ++row) {
        const float* x = rotated[row];
        const float peak = largest(x, num_inputs), inverse = peak > kNothing ? 127.0f / peak : 0.0f;
        packed.scales[size_t(row)] = peak / 127.0f;
        for (int i = 0; i < num_inputs; ++i)
            packed.panels[size_t(byte_offset(row, i, padded))] = static_cast<uint8_t>(static_cast<int>(rounded(x[i] * inverse)) + 128);
    }
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
    std::vector<uint8_t> nibbles(size_t(padded_rows) * size_t(padded), 8);
    PackedRows packed;
    packed.multipliers.assign(size_t(padded_rows) * size_t(groups), 1);
    packed.scales.assign(size_t(padded_rows), 0.0f);
    RotatedRows rotated(kernels, rows, num_inputs);
    for (int row = 0; row < num_rows; ++row) {
        const float* x = rotated[row];
        const float peak = largest(x, num_inputs), scale = peak / (kHighest4 * kMaxMultiplier);
        const float inverse = peak > kNothing ? 1.0f / scale : 0.0f;
        packed.scales[size_t(row)] = scale;
        for (int g = 0; g < groups; ++g) {
            const int multiplier = best_multiplier(x + g * kGroup, inverse);
            packed.multipliers[size_t((row / kPanel * groups + g) * kPanel + row % kPanel)] = uint8_t(multiplier);
            const float per_step = inverse / static_cast<float>(multiplier);
            for (int i = g * kGroup; i < (g + 1) * kGroup; ++i)
                nibbles[size_t(byte_offset(row, i, padded))] =
                    static_cast<uint8_t>(static_cast<int>(nibble_of(x[i] * per_step)) + 8);
        }
    }
    packed.panels = pack_nibbles(nibbles, 0);
    return packed;
}

}  // namespace gemma3
