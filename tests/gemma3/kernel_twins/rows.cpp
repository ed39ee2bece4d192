// The floating-point work on one row against its formula in float64.
#include "twins.h"

#include <algorithm>
#include <functional>

namespace twins {
namespace {

using namespace gemma3;

constexpr float kRmsEps = 1e-6f;
constexpr int kSizes[] = {1, 15, 16, 17, 33, 127, 640};
constexpr int kRotations[] = {1, 2, 8, 16, 32, 128};

Floats padded(const Floats& x, int unit = 16) {
    Floats longer = x;
    longer.resize(size_t(round_up(int(x.size()), unit)));
    return longer;
}

// Ordinary and extreme rows of one size.
std::vector<Floats> rows_of(int size) {
    Random random(size);
    std::vector<Floats> rows{random.normals(size)};
    for (const double factor : {1e16, 1e-30, 1e-40, 0.0}) rows.push_back(random.normals(size, factor));
    rows.push_back(random.normals(size));
    for (float& x : rows.back()) x *= std::pow(30.0f, float(random.integer(-3, 3)));
    rows.push_back(Floats(size_t(size), 0.0f));
    rows.back().back() = -100;
    return rows;
}

// For each row of each size, in whole units.
void for_rows(int unit, const std::function<void(const Floats&)>& test) {
    for (const int size : kSizes)
        for (const Floats& x : rows_of(round_up(size, unit))) test(x);
}

Floats weight_of(int size) {
    Random random(size + 1);
    Floats weight;
    for (int i = 0; i < size; ++i) weight.push_back(float(random.uniform(-0.9, 3)));
    return weight;
}

struct Near {
    Doubles expected, error;
};

// RMSNorm: the largest relative error is that of the sum under the root, then five operations.
Near normed(const Floats& x, const Floats& weight) {
    double squares = 0;
    for (const float value : x) squares += double(value) * value;
    const double factor = 1 / std::sqrt(squares / double(x.size()) + kRmsEps), steps = (double(x.size()) / 16 + 6) / 2 + 5;
    Near near;
    for (size_t i = 0; i < x.size(); ++i) {
        const double out = x[i] * factor * (1.0 + weight[i]);
        near.expected.push_back(out);
        near.error.push_back(std::abs(out) * steps * kEps + std::abs(x[i] * factor) * kEps);
    }
    return near;
}

int64_t test_norm(const Kernels& kernels) {
    int64_t count = 0;
    for_rows(1, [&](const Floats& x) {
        const int size = int(x.size());
        const Floats weight = weight_of(size), residual = Random(2).normals(size, 3);
        Near near = normed(x, weight);
        Floats out(padded(x).size(), NAN), added = padded(residual);
        kernels.norm(padded(x).data(), padded(weight).data(), kRmsEps, size, out.data());
        require_near(out, near.expected, near.error, kernels, "norm of " + std::to_string(size));
        kernels.add_norm(added.data(), padded(x).data(), padded(weight).data(), kRmsEps, size);
        for (size_t i = 0; i < x.size(); ++i) {
            near.expected[i] += residual[i];
            near.error[i] += std::abs(near.expected[i]) * kEps;
        }
        require_near(added, near.expected, near.error, kernels, "add_norm of " + std::to_string(size));
        for (size_t i = x.size(); i < out.size(); ++i) require(out[i] == 0 && added[i] == 0, kernels, "norm fills up with zeros");
        count += 2 * size;
    });
    return count;
}

// By the definition of a Hadamard matrix: the sign is the parity of the bits that two indices share.
Near rotated(const Floats& x, int rotation) {
    Near near;
    const double root = std::sqrt(rotation);
    for (size_t i = 0; i < x.size(); ++i) {
        const size_t block = i / size_t(rotation) * size_t(rotation);
        double sum = 0, size = 0;
        for (size_t j = 0; j < size_t(rotation); ++j) {
            sum += __builtin_parity(unsigned((i - block) & j)) ? -double(x[block + j]) : double(x[block + j]);
            size += std::abs(double(x[block + j]));
        }
        near.expected.push_back(sum / root);
        near.error.push_back(size / root * (std::log2(rotation) + 3) * kEps);
    }
    return near;
}

// Of three rows the middle one: rounding takes half a step, and what it rounds is as exact as a rotation.
void compare_quantize(const Kernels& kernels, const Floats& x, int rotation, const Near& near) {
    const int num_inputs = round_up(int(x.size()), kGroup), groups = num_inputs / kGroup;
    std::vector<int8_t> values(size_t(3 * num_inputs), 99);
    Floats scales(3, 99), row = padded(x);
    std::vector<int32_t> group_sums(size_t(3 * groups), 99), sums(3, 99), expected_groups(static_cast<size_t>(groups));
    Activations out{values.data(), scales.data(), group_sums.data(), sums.data(), num_inputs, 3};
    kernels.quantize(row.data(), int(x.size()), rotation, out, 1);
    double peak = 0;
    for (const double value : near.expected) peak = std::max(peak, std::abs(value));
    const double relative = (std::log2(rotation) + 6) * std::sqrt(rotation) * kEps;
    require(std::abs(scales[1] - peak / 127) <= peak / 127 * relative + kSmallest, kernels, "quantize: scale");
    int32_t total = 0;
    for (int i = 0; i < num_inputs; ++i) {
        const int found = values[size_t(num_inputs + i)];
        const double steps = i < int(x.size()) && peak > 1e-35 ? near.expected[size_t(i)] / (peak / 127) : 0;
        require(std::abs(found - steps) <= 0.5 + 254 * relative, kernels, "quantize: value " + std::to_string(i));
        expected_groups[size_t(i / kGroup)] += found;
        total += found;
    }
    require(std::equal(expected_groups.begin(), expected_groups.end(), group_sums.begin() + groups) && sums[1] == total, kernels,
            "quantize: sums");
    require(values[size_t(num_inputs - 1)] == 99 && values[size_t(2 * num_inputs)] == 99 && sums[0] == 99 && sums[2] == 99, kernels,
            "quantize: other rows are left alone");
}

int64_t test_rotate(const Kernels& kernels) {
    int64_t count = 0;
    for (const int rotation : kRotations)
        for_rows(rotation, [&](const Floats& x) {
            const Near near = rotated(x, rotation);
            Floats found = padded(x);
            kernels.rotate(found.data(), int(x.size()), rotation);
            require_near(found, near.expected, near.error, kernels, "rotate by " + std::to_string(rotation));
            compare_quantize(kernels, x, rotation, near);
            count += 2 * int64_t(x.size());
        });
    for (const float spoiled : {NAN, INFINITY, -INFINITY}) {
        Floats x(64, 1), scales(1);
        x[33] = spoiled;
        int8_t values[kGroup];
        int32_t group_sum, sum;
        Activations out{values, scales.data(), &group_sum, &sum, kGroup, 1};
        kernels.quantize(x.data(), 64, 1, out, 0);
        require(std::isnan(scales[0]), kernels, "quantize: what is not finite shows in the scale");
    }
    return count;
}

int64_t test_gelu_gate(const Kernels& kernels) {
    Random random(3);
    constexpr int kSize = 640;
    Floats gate{0.0f, -0.0f, 1e-40f, 1e-6f, 9.9f, -9.9f, 12, -12, 50, -50, 1e4f, -1e4f}, gate_up, out(kSize, NAN);
    while (gate.size() < kSize) gate.push_back(float(random.uniform(-11, 11)));
    const Floats up = random.normals(kSize, 10);
    Doubles expected, error;
    for (size_t i = 0; i < kSize; i += 16) {
        gate_up.insert(gate_up.end(), gate.begin() + long(i), gate.begin() + long(i) + 16);
        gate_up.insert(gate_up.end(), up.begin() + long(i), up.begin() + long(i) + 16);
    }
    for (size_t i = 0; i < kSize; ++i) {
        const double x = gate[i], u2 = 2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
        const double value = x * up[i] / (1 + std::exp(std::min(-u2, 700.0))), falling = 1 / (1 + std::exp(std::min(u2, 700.0)));
        expected.push_back(value);
        error.push_back(std::abs(value) * (4 + falling * (3 + 7 * std::abs(u2))) * kEps + std::abs(x * up[i]) * std::exp(-88 + 1e-4));
    }
    kernels.gelu_gate(gate_up.data(), out.data(), kSize);
    require_near(out, expected, error, kernels, "gelu_gate");
    return kSize;
}

// As `normed`, four more operations on both numbers of a pair, then half a bfloat16 step.
int64_t test_norm_rope(const Kernels& kernels) {
    int64_t count = 0;
    constexpr float kScale = 0.0625f;
    for_rows(2, [&](const Floats& x) {
        const size_t size = x.size(), half = size / 2;
        const Floats weight = weight_of(int(size));
        const Near near = normed(x, weight);
        Floats cos, sin;
        for (size_t i = 0; i < half; ++i) {
            const double angle = 1000 * std::pow(1e4, -2.0 * double(i) / double(size));
            cos.push_back(float(std::cos(angle)));
            sin.push_back(float(std::sin(angle)));
        }
        Words out(size);
        kernels.norm_rope(x.data(), weight.data(), kRmsEps, cos.data(), sin.data(), int(size), kScale, out.data());
        Doubles found, expected, error;
        for (size_t i = 0; i < size; ++i) {
            const size_t other = (i + half) % size;
            const double turned = i < half ? -near.expected[other] : near.expected[other];
            found.push_back(widened(out[i]));
            expected.push_back((near.expected[i] * cos[i % half] + turned * sin[i % half]) * kScale);
            error.push_back((near.error[i] + near.error[other] + (std::abs(near.expected[i]) + std::abs(turned)) * 4 * kEps) * kScale +
                            std::abs(expected.back()) / 256 + 0x1p-133);
        }
        require_near(found, expected, error, kernels, "norm_rope of " + std::to_string(size));
        count += int64_t(size);
    });
    return count;
}

int64_t test_bound_logits(const Kernels& kernels) {
    Random random(5);
    constexpr int kPanels = 15, kLargest = 2048 * 127 * 15;
    constexpr float kActivationScale = 0.01f;
    for (const float rest : {0.5f, -31415.9f, -2e6f}) {
        std::vector<int32_t> sums;
        Floats scales, found(kPanels, NAN);
        Doubles expected(kPanels, -INFINITY), error(kPanels);
        for (size_t i = 0; i < kPanel * kPanels; ++i) {
            sums.push_back(random.integer(-kLargest, kLargest));
            scales.push_back(float(random.uniform(0, 1e-3)));
            const double factor = double(scales[i]) * kActivationScale, size = 16.0 * std::abs(sums[i]) + std::abs(rest);
            expected[i / kPanel] = std::max(expected[i / kPanel], (16.0 * sums[i] + rest) * factor);
            error[i / kPanel] = std::max(error[i / kPanel], size * factor * 3 * kEps);
        }
        kernels.bound_logits(sums.data(), scales.data(), kPanels, kActivationScale, rest, found.data());
        require_near(found, expected, error, kernels, "bound_logits");
    }
    return 3 * kPanels;
}

}  // namespace

int64_t test_rows(const std::vector<const Kernels*>& all) {
    int64_t count = 0;
    for (const Kernels* kernels : all)
        for (const auto test : {test_norm, test_rotate, test_gelu_gate, test_norm_rope, test_bound_logits}) count += test(*kernels);
    return count;
}

}  // namespace twins
