// Products of integers: equal, whatever the format, the number of rows and of panels.
#include "twins.h"

namespace twins {
namespace {

using namespace gemma3;

constexpr int kRowCounts[] = {1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 17, 33, 43};  // each way in which a kernel cuts rows
constexpr int kInputCounts[] = {64, 192, 320};

struct Rows {
    std::vector<int8_t> values;
    Floats scales;
    std::vector<int32_t> group_sums, sums;
    Activations view;
};

Rows make_rows(Random& random, int num_rows, int num_inputs) {
    Rows rows;
    const int room = round_up(num_rows, 32), groups = num_inputs / kGroup;
    rows.values.resize(size_t(room * num_inputs), -99);
    rows.sums.resize(size_t(num_rows));
    rows.group_sums.resize(size_t(num_rows * groups));
    for (int row = 0; row < num_rows; ++row) {
        rows.scales.push_back(float(random.uniform(0.001, 1)));
        for (int i = 0; i < num_inputs; ++i) {
            // The first two rows reach the largest sums there can be.
            const int value = row > 1 ? random.integer(-127, 127) : row == 1 && random.integer(0, 1) ? -127 : 127;
            rows.values[size_t(row * num_inputs + i)] = int8_t(value);
            rows.sums[size_t(row)] += value;
            rows.group_sums[size_t(row * groups + i / kGroup)] += value;
        }
    }
    rows.view = {rows.values.data(), rows.scales.data(), rows.group_sums.data(), rows.sums.data(), num_inputs, num_rows};
    return rows;
}

// Bytes of all values; of the first four outputs of each panel the largest, the smallest and both in turn.
std::vector<uint8_t> make_bytes(Random& random, int num_bytes) {
    std::vector<uint8_t> bytes;
    for (int i = 0; i < num_bytes; ++i) {
        const int output = i % kLine / kLineInputs;
        bytes.push_back(uint8_t(output == 0 ? 255 : output == 1 ? 0 : output == 2 ? i % 2 * 255 : random.integer(0, 255)));
    }
    return bytes;
}

struct Case {
    std::vector<uint8_t> panels, multipliers;
    Floats scales;
    Matrix matrix;

    // What the weight of an output stands for, times a value; of kNibbles the nibble itself.
    int weight(int output, int input) const {
        const uint8_t* panel = panels.data() + output / kPanel * matrix.panel_bytes();
        if (matrix.format == Format::kInt8) return panel[byte_offset(output % kPanel, input)] - kByteOffset;
        const int nibble = nibble_at(panel, output % kPanel, input);
        if (matrix.format == Format::kNibbles) return nibble;
        const int group = output / kPanel * (matrix.num_inputs / kGroup) + input / kGroup;
        return (nibble - kNibbleOffset) * int8_t(multipliers[size_t(group * kPanel + output % kPanel)]);
    }
    int64_t sum(const Rows& rows, int row, int output) const {
        int64_t total = 0;
        for (int i = 0; i < matrix.num_inputs; ++i) total += weight(output, i) * rows.values[size_t(row * matrix.num_inputs + i)];
        return total;
    }
};

Case make_case(Random& random, Format format, int num_panels, int num_inputs) {
    Case made;
    made.matrix.format = format;
    made.matrix.num_panels = num_panels;
    made.matrix.num_inputs = num_inputs;
    made.panels = make_bytes(random, int(num_panels * made.matrix.panel_bytes()));
    for (int i = 0; i < num_panels * kPanel * num_inputs / kGroup; ++i) made.multipliers.push_back(uint8_t(random.integer(-kMaxMultiplier, kMaxMultiplier)));
    for (int i = 0; i < num_panels * kPanel; ++i) made.scales.push_back(float(random.uniform(0, 1e-3)));
    made.matrix.panels = made.panels.data();
    made.matrix.multipliers = made.multipliers.data();
    made.matrix.scales = made.scales.data();
    return made;
}

// The panels [first, last) of `made` into rows that are wider than those, so that a number out of place is seen.
int64_t compare(const std::vector<const Kernels*>& all, const Case& made, const Rows& rows, int first, int last) {
    const bool nibbles = made.matrix.format == Format::kNibbles;
    const int num_rows = rows.view.num_rows, stride = made.matrix.num_panels * kPanel + 5, begin = nibbles ? 0 : first * kPanel;
    const int shift = first * kPanel - begin, width = (last - first) * kPanel;  // where the outputs lie in a row
    std::vector<double> expected(size_t(num_rows * stride), -1);
    for (int row = 0; row < num_rows; ++row)
        for (int o = 0; o < width; ++o) {
            const int output = first * kPanel + o;
            const float sum = float(made.sum(rows, row, output));
            expected[size_t(row * stride + output - shift)] =
                nibbles ? sum : sum * (made.scales[size_t(output)] * rows.scales[size_t(row)]);
        }
    for (const Kernels* kernels : all) {
        Floats floats(size_t(num_rows * stride), -1);
        std::vector<int32_t> sums(size_t(num_rows * stride), -1);
        std::vector<uint8_t> scratch(size_t(product_scratch(last - first, made.matrix.num_inputs)));
        if (nibbles) {
            kernels->matmul_nibbles(made.matrix, rows.view, first, last, sums.data(), stride, scratch.data());
        } else {
            kernels->matmul(made.matrix, rows.view, first, last, floats.data(), stride, scratch.data());
        }
        for (size_t i = 0; i < expected.size(); ++i)
            require((nibbles ? sums[i] : floats[i]) == expected[i], *kernels,
                    "format " + std::to_string(int(made.matrix.format)) + ", " + std::to_string(num_rows) + " rows, " +
                        std::to_string(made.matrix.num_inputs) + " inputs: element " + std::to_string(i));
    }
    return int64_t(expected.size() * all.size());
}

int64_t test_join_planes(const std::vector<const Kernels*>& all) {
    Random random(1);
    constexpr int kLines = 9;
    const std::vector<uint8_t> high = make_bytes(random, kLines * kLine), low = make_bytes(random, kLines * kLine);
    for (const Kernels* kernels : all) {
        std::vector<uint8_t> bytes(2 * kLines * kLine);
        kernels->join_planes(high.data(), low.data(), kLines, bytes.data());
        for (int input = 0; input < kLines * kNibbleInputs; ++input)
            for (int o = 0; o < kPanel; ++o)
                require(bytes[size_t(byte_offset(o, input))] == 16 * nibble_at(high.data(), o, input) + nibble_at(low.data(), o, input),
                        *kernels, "join_planes");
    }
    return int64_t(all.size()) * 2 * kLines * kLine;
}

}  // namespace

int64_t test_products(const std::vector<const Kernels*>& all) {
    Random random(0);
    int64_t count = test_join_planes(all);
    for (const Format format : {Format::kInt8, Format::kInt4, Format::kNibbles})
        for (const int num_inputs : kInputCounts)
            for (const int num_rows : kRowCounts) {
                const Case made = make_case(random, format, 4, num_inputs);
                const Rows rows = make_rows(random, num_rows, num_inputs);
                count += compare(all, made, rows, num_rows % 2, num_rows % 3 ? 3 : 4);
            }
    return count;
}

}  // namespace twins
