// What the twin tests of the kernels share. Like test_cpu_kernels.py and its like, but a program of its own: it runs where
// there is no Python, such as another processor that is emulated. The bounds of errors are explained there.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "isa.h"

namespace twins {

using gemma3::Kernels;
using Floats = std::vector<float>;
using Doubles = std::vector<double>;
using Words = std::vector<uint16_t>;  // bfloat16

constexpr double kEps = 1.0 / (1 << 24);
constexpr double kSmallest = 0x1p-149;

class Random {
public:
    explicit Random(int seed) : engine_(uint32_t(seed)) {}
    // Of [first, last].
    int integer(int first, int last) { return first + int(engine_() % uint32_t(last - first + 1)); }
    double uniform(double low, double high) { return low + (high - low) * (engine_() / 4294967296.0); }
    double normal() {
        return std::sqrt(-2 * std::log(uniform(1e-10, 1))) * std::cos(6.283185307179586 * uniform(0, 1));
    }
    Floats normals(int size, double factor = 1) {
        Floats found(static_cast<size_t>(size));
        for (float& x : found) x = float(normal() * factor);
        return found;
    }

private:
    std::mt19937 engine_;
};

// Ends the program, with the kernels and the case that failed, unless `holds`.
void require(bool holds, const Kernels& kernels, const std::string& what);

// Every element finite, and as near to `expected` as `error` says.
template <typename Found>
void require_near(const Found& found, const Doubles& expected, const Doubles& error, const Kernels& kernels, const std::string& what) {
    for (size_t i = 0; i < expected.size(); ++i) {
        const double off = std::abs(found[i] - expected[i]);
        require(std::isfinite(found[i]) && off <= error[i] + kSmallest, kernels,
                what + "[" + std::to_string(i) + "] is off by " + std::to_string(off / (error[i] + kSmallest)) + " of what is allowed");
    }
}

inline double widened(uint16_t word) {
    const uint32_t bits = uint32_t{word} << 16;
    float x;
    std::memcpy(&x, &bits, sizeof(x));
    return x;
}
Words rounded(const Floats& x);

// Each tests all of `all`, and says how many results it compared.
int64_t test_products(const std::vector<const Kernels*>& all);
int64_t test_rows(const std::vector<const Kernels*>& all);
int64_t test_attention(const std::vector<const Kernels*>& all);

}  // namespace twins
