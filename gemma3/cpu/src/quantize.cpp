#include "quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "buffers.h"

namespace gemma3 {
namespace {

constexpr int kLowest4 = -8, kHighest4 = 7;

// In 16 lanes, for one would wait for each comparison. `size` is a multiple of 16.
float largest(const float* row, int size) {
    float peaks[16] = {};
    for (int i = 0; i < size; i += 16)
        for (int k = 0; k < 16; ++k) peaks[k] = std::max(peaks[k], std::fabs(row[i + k]));
    return *std::max_element(peaks, peaks + 16);
}

inline float rounded(float x) { return x + kRounder - kRounder; }

// The rows of a panel, one after the other, a byte for each of `num_inputs` (padded) inputs, to lines of int8.
void store_bytes(const uint8_t* rows, int num_inputs, uint8_t* panel) {
    for (int input = 0; input < num_inputs; input += kLineInputs)
        for (int output = 0; output < kPanel; ++output)
            std::memcpy(panel + byte_offset(output, input), rows + output * num_inputs + input, kLineInputs);
}

// The same to lines of nibbles: of each byte the 4 bits from `shift` on.
void store_nibbles(const uint8_t* rows, int num_inputs, int shift, uint8_t* panel) {
    for (int input = 0; input < num_inputs; input += kNibbleInputs)
        for (int output = 0; output < kPanel; ++output) {
            uint32_t low, high;
            std::memcpy(&low, rows + output * num_inputs + input, kLineInputs);
            std::memcpy(&high, rows + output * num_inputs + input + kLineInputs, kLineInputs);
            const uint32_t both = (low >> shift & 0x0f0f0f0f) | (high >> shift & 0x0f0f0f0f) << 4;
            std::memcpy(panel + nibble_line_offset(input) + output * kLineInputs, &both, kLineInputs);
        }
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

// The multiplier with the least squared error, of either sign, which is an eighth less than with positive ones alone. The best
// cuts off a little of a group's largest weights at most, so only those that reach from 5 / 8 of the largest to all of it are
// tried.
int best_multiplier(const float* group, float inverse) {
    const float peak = largest(group, kGroup) * inverse;
    const int last = std::clamp(static_cast<int>(std::ceil(peak / kHighest4)), 1, kMaxMultiplier);
    int best = last;
    float least = squared_error(group, inverse, last);
    const auto attempt = [&](int multiplier) {
        const float error = squared_error(group, inverse, multiplier);
        if (!(error < least)) return;
        least = error;
        best = multiplier;
    };
    for (int size = std::max(1, last * 5 / 8); size <= last; ++size)
        for (const int multiplier : {size, -size}) attempt(multiplier);
    return best;
}

// Panel by panel: `quantize(row, x, peak, bytes)` for each row, x being the row rotated and padded with zeros and peak its
// largest magnitude; then `store(panel, bytes)` for the 16 rows of a panel. Bytes nobody writes are `padding`.
template <typename Quantize, typename Store>
void for_each_panel(const Kernels& kernels, const FloatRows& rows, uint8_t padding, const Quantize& quantize, const Store& store) {
    const int padded = round_up(rows.num_inputs, kGroup);
    Buffer<float> x(padded);
    Buffer<uint8_t> bytes(int64_t{kPanel} * padded);
    for (int row = 0; row < round_up(rows.num_rows, kPanel); ++row) {
        uint8_t* row_bytes = bytes.data() + row % kPanel * padded;
        std::fill_n(row_bytes, padded, padding);
        if (row < rows.num_rows) {
            const float* from = rows.values + int64_t{row} * rows.num_inputs;
            for (int i = 0; i < rows.num_inputs; ++i) x[i] = from[i] * rows.factors[i];
            kernels.rotate(x.data(), rows.num_inputs, rotation_of(rows.num_inputs));
            quantize(row, x.data(), largest(x.data(), padded), row_bytes);
        }
        if (row % kPanel == kPanel - 1) store(row / kPanel, bytes.data());
    }
}

// One row to int8; its scale is returned.
float quantize_row(const float* x, int num_inputs, float peak, uint8_t* bytes) {
    const float inverse = peak > kNothing ? 127.0f / peak : 0.0f;
    for (int i = 0; i < num_inputs; ++i) bytes[i] = uint8_t(int(rounded(x[i] * inverse)) + kByteOffset);
    return peak / 127.0f;
}

}  // namespace

int rotation_of(int num_inputs) {
    int rotation = 1;
    while (rotation < 128 && num_inputs % (2 * rotation) == 0) rotation *= 2;
    return rotation;
}

void quantize_int8(const Kernels& kernels, const FloatRows& rows, const PackedRows& packed) {
    const int padded = round_up(rows.num_inputs, kGroup);
    std::fill_n(packed.scales, round_up(rows.num_rows, kPanel), 0.0f);
    for_each_panel(kernels, rows, kByteOffset, [&](int row, const float* x, float peak, uint8_t* bytes) {
        packed.scales[row] = quantize_row(x, rows.num_inputs, peak, bytes);
    }, [&](int panel, const uint8_t* bytes) { store_bytes(bytes, padded, packed.panels + int64_t{panel} * kPanel * padded); });
}

void quantize_embedding(const Kernels& kernels, const FloatRows& rows, const PackedRows& packed) {
    const int padded = round_up(rows.num_inputs, kGroup);
    std::fill_n(packed.scales, round_up(rows.num_rows, kPanel), 0.0f);
    for_each_panel(kernels, rows, kByteOffset, [&](int row, const float* x, float peak, uint8_t* bytes) {
        packed.scales[row] = quantize_row(x, rows.num_inputs, peak, bytes);
    }, [&](int panel, const uint8_t* bytes) {
        store_nibbles(bytes, padded, 4, packed.panels + int64_t{panel} * kPanel / 2 * padded);
        store_nibbles(bytes, padded, 0, packed.low + int64_t{panel} * kPanel / 2 * padded);
    });
}

void quantize_int4(const Kernels& kernels, const FloatRows& rows, const PackedRows& packed) {
    const int padded_rows = round_up(rows.num_rows, kPanel), padded = round_up(rows.num_inputs, kGroup), groups = padded / kGroup;
    std::fill_n(packed.multipliers, int64_t{padded_rows} * groups, uint8_t{1});
    std::fill_n(packed.scales, padded_rows, 0.0f);
    for_each_panel(kernels, rows, kNibbleOffset, [&](int row, const float* x, float peak, uint8_t* nibbles) {
        const float scale = peak / (kHighest4 * kMaxMultiplier), inverse = peak > kNothing ? 1.0f / scale : 0.0f;
        packed.scales[row] = scale;
        for (int group = 0; group < groups; ++group) {
            const int multiplier = best_multiplier(x + group * kGroup, inverse);
            packed.multipliers[(row / kPanel * groups + group) * kPanel + row % kPanel] = uint8_t(multiplier);
            const float per_step = inverse / static_cast<float>(multiplier);
            for (int i = group * kGroup; i < (group + 1) * kGroup; ++i)
                nibbles[i] = uint8_t(int(nibble_of(x[i] * per_step)) + kNibbleOffset);
        }
    }, [&](int panel, const uint8_t* nibbles) {
        store_nibbles(nibbles, padded, 0, packed.panels + int64_t{panel} * kPanel / 2 * padded);
    });
}

}  // namespace gemma3
