// attend and merge against softmax in float64.
#include "twins.h"

#include <algorithm>
#include <string_view>

namespace twins {
namespace {

using namespace gemma3;

struct Shape {
    int num_rows, num_blocks, dim;
};
constexpr Shape kShapes[] = {{1, 1, 32}, {3, 2, 64}, {4, 8, 256}, {5, 3, 32}, {15, 8, 64}, {17, 8, 32}, {31, 5, 96}};

// Queries (R, H), keys and values (S, H), bfloat16; which keys [first, last) a row sees.
struct Case {
    Shape shape;
    Words queries, keys, values;
    std::vector<KeyRange> ranges;
    int num_keys() const { return kBlockSize * shape.num_blocks; }
};

Case make_case(Shape shape, double spread) {
    Random random(shape.num_rows + shape.num_blocks);
    Case made{shape, {}, {}, {}, {}};
    made.queries = rounded(random.normals(shape.num_rows * shape.dim, spread));
    made.keys = rounded(random.normals(made.num_keys() * shape.dim));
    made.values = rounded(random.normals(made.num_keys() * shape.dim));
    const KeyRange special[] = {{0, made.num_keys()}, {7, 7}, {made.num_keys() - 1, made.num_keys()}};
    for (int row = 0; row < shape.num_rows; ++row) {
        const int a = random.integer(0, made.num_keys()), b = random.integer(0, made.num_keys());
        made.ranges.push_back(row < 3 ? special[row] : KeyRange{std::min(a, b), std::max(a, b)});
    }
    return made;
}

// Keys as [H / 2][16][2], values as [16 / 2][H][2], by block.
struct Blocks {
    Words keys, values;
    KeyBlocks view;
    explicit Blocks(const Case& made) : keys(made.keys.size()), values(made.values.size()) {
        const int dim = made.shape.dim;
        for (int key = 0; key < made.num_keys(); ++key)
            for (int d = 0; d < dim; ++d) {
                const size_t from = size_t(key * dim + d), block = size_t(key / kBlockSize * kBlockSize * dim);
                const int at = key % kBlockSize;
                keys[block + size_t(d / 2 * 2 * kBlockSize + 2 * at + d % 2)] = made.keys[from];
                values[block + size_t(at / 2 * 2 * dim + 2 * d + at % 2)] = made.values[from];
            }
        view.num_blocks = made.shape.num_blocks;
        for (int b = 0; b < view.num_blocks; ++b) {
            view.keys[b] = keys.data() + b * kBlockSize * dim;
            view.values[b] = values.data() + b * kBlockSize * dim;
        }
    }
};

// One row in float64, and how far float32 may be from it.
struct Expected {
    double peak = -INFINITY, total = 0, peak_error = 0, total_error = 0;
    Doubles out, out_error;
};

Expected expect(const Case& made, int row, bool rounds_weights) {
    const int dim = made.shape.dim;
    const KeyRange range = made.ranges[size_t(row)];
    Doubles scores;
    double largest = 0;
    for (int key = 0; key < made.num_keys(); ++key) {
        double score = 0, size = 0;
        for (int d = 0; d < dim; ++d) {
            const double product = widened(made.queries[size_t(row * dim + d)]) * widened(made.keys[size_t(key * dim + d)]);
            score += product;
            size += std::abs(product);
        }
        scores.push_back(score);
        largest = std::max(largest, size);
    }
    Expected found;
    found.out.resize(size_t(dim));
    found.out_error.resize(size_t(dim));
    found.peak_error = largest * std::sqrt(dim) * kEps;
    const double relative = 2 * found.peak_error + (made.num_keys() + 8) * kEps;
    for (int key = range.first; key < range.last; ++key) found.peak = std::max(found.peak, scores[size_t(key)]);
    for (int key = range.first; key < range.last; ++key) {
        const double weight = std::exp(scores[size_t(key)] - found.peak);
        found.total += weight;
        for (int d = 0; d < dim; ++d) {
            const double value = weight * widened(made.values[size_t(key * dim + d)]);
            found.out[size_t(d)] += value;
            found.out_error[size_t(d)] += std::abs(value) * (relative + (rounds_weights ? 1.0 / 256 : 0)) + 1e-30;
        }
    }
    found.total_error = found.total * relative + 1e-30;
    return found;
}

int64_t compare(const std::vector<const Kernels*>& all, const Case& made) {
    const Blocks blocks(made);
    const int dim = made.shape.dim;
    Words queries = made.queries;
    queries.resize(size_t(kMaxRows * dim));
    for (const Kernels* kernels : all) {
        Floats out(queries.size(), NAN), peaks(kMaxRows, NAN), totals(kMaxRows, NAN);
        kernels->attend({queries.data(), out.data(), peaks.data(), totals.data(), made.shape.num_rows, dim}, blocks.view, made.ranges.data());
        for (int row = 0; row < made.shape.num_rows; ++row) {
            const Expected expected = expect(made, row, std::string_view(kernels->name) == "amx");
            const std::string what = "attend, row " + std::to_string(row) + " of " + std::to_string(made.shape.num_rows);
            if (expected.total == 0) {
                require(peaks[size_t(row)] == -INFINITY && totals[size_t(row)] == 0, *kernels, what + " sees nothing");
            } else {
                require_near(Floats{peaks[size_t(row)], totals[size_t(row)]}, {expected.peak, expected.total},
                             {expected.peak_error, expected.total_error}, *kernels, what + ": peak, total");
            }
            require_near(Floats(out.begin() + row * dim, out.begin() + (row + 1) * dim), expected.out, expected.out_error, *kernels, what);
        }
    }
    return int64_t(all.size()) * made.shape.num_rows * dim;
}

// Adding a chunk whose peak is `gap` higher, or lower if that is negative.
int64_t compare_merge(const std::vector<const Kernels*>& all, double gap) {
    constexpr int kDim = 96;
    constexpr float kTotal = 3.25f, kMoreTotal = 90.0f;
    Random random(7);
    const Floats old = random.normals(kDim, 100), more = random.normals(kDim, 100);
    const float peak = -3.5f, more_peak = float(peak + gap), highest = std::max(peak, more_peak);
    const auto factor = [&](float of) { return double(of) - highest < -87 ? 0.0 : std::exp(double(of) - highest); };
    Doubles expected{kTotal * factor(peak) + kMoreTotal * factor(more_peak)}, error{expected[0] * 6 * kEps};
    for (int i = 0; i < kDim; ++i) {
        const double a = old[size_t(i)] * factor(peak), b = more[size_t(i)] * factor(more_peak);
        expected.push_back(a + b);
        error.push_back((std::abs(a) + std::abs(b)) * 6 * kEps + 1e-43);
    }
    for (const Kernels* kernels : all) {
        Floats out = old, found;
        float new_peak = peak, total = kTotal;
        kernels->merge(out.data(), new_peak, total, more.data(), more_peak, kMoreTotal, kDim);
        require(new_peak == highest, *kernels, "merge: peak");
        found.push_back(total);
        found.insert(found.end(), out.begin(), out.end());
        require_near(found, expected, error, *kernels, "merge, gap " + std::to_string(gap));
    }
    return int64_t(all.size()) * kDim;
}

}  // namespace

int64_t test_attention(const std::vector<const Kernels*>& all) {
    int64_t count = 0;
    for (const double spread : {0.0, 0.1, 1.0, 8.0})
        for (const Shape shape : kShapes) count += compare(all, make_case(shape, spread));
    for (const double gap : {0.0, 0.3, 10.0, 50.0, 86.9, 87.1, 1e4})
        for (const int sign : {-1, 1}) count += compare_merge(all, sign * gap);
    return count;
}

}  // namespace twins
