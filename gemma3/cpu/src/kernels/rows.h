// The floating-point work on one row. Sums are taken in 16 lanes, then folded in halves.
#pragma once

#include <cmath>
#include <cstring>

#include "kernels.h"
#include "lanes.h"

namespace gemma3::GEMMA3_ISA {
namespace {

// 1 / sqrt(mean(x^2) + eps); x is padded to 16 with zeros.
GEMMA3_INLINE float inverse_rms(const float* x, float eps, int size) {
    Floats squares{};
    for (int i = 0; i < size; i += 16) squares = madd(load(x + i), load(x + i), squares);
    return 1.0f / __builtin_sqrtf(sum_lanes(squares) / static_cast<float>(size) + eps);
}

// Without the factor 1 / sqrt(rotation).
void transform(float* x, int size, int rotation) {
    if (rotation < 16) {
        for (int stride = 1; stride < rotation; stride *= 2)
            for (int i = 0; i < size; ++i)
                if (!(i & stride)) {
                    const float a = x[i], b = x[i + stride];
                    x[i] = a + b;
                    x[i + stride] = a - b;
                }
        return;
    }
    for (int i = 0; i < size; i += 16) store(x + i, butterfly<8>(butterfly<4>(butterfly<2>(butterfly<1>(load(x + i))))));
    for (int stride = 16; stride < rotation; stride *= 2)
        for (int block = 0; block < size; block += 2 * stride)
            for (int i = block; i < block + stride; i += 16) {
                const Floats a = load(x + i), b = load(x + i + stride);
                store(x + i, a + b);
                store(x + i + stride, a - b);
            }
}

void rotate(float* x, int size, int rotation) {
    transform(x, size, rotation);
    const float factor = 1.0f / __builtin_sqrtf(static_cast<float>(rotation));
    for (int i = 0; i < size; ++i) x[i] *= factor;
}

void quantize(float* x, int size, int rotation, Activations& out, int row) {
    transform(x, size, rotation);
    Floats peaks{}, spoiled{};
    for (int i = 0; i < size; i += 16) {
        peaks = larger(peaks, larger(load(x + i), Floats(-0.0f) - load(x + i)));
        spoiled = spoiled + load(x + i) * 0.0f;  // NaN if any value is NaN or infinite: it must show in the result
    }
    const float peak = max_lanes(peaks) + sum_lanes(spoiled);
    // Where it is NaN, the scale tells; the values are zeros then, since sums of what NaN is rounded to overflow.
    const int num_values = peak == peak ? size : 0;
    const float inverse = peak > kNothing ? 127.0f / peak : 0.0f;
    out.scales[row] = peak / (127.0f * __builtin_sqrtf(static_cast<float>(rotation)));
    int8_t* values = out.values + int64_t{row} * out.num_inputs;
    int32_t* group_sums = out.group_sums + int64_t{row} * (out.num_inputs / kGroup);
    Ints total{};
    for (int start = 0; start < out.num_inputs; start += kGroup) {
        Ints group{};
        for (int i = start; i < start + kGroup; i += 16) {
            const Floats shifted = madd(i < num_values ? load(x + i) : Floats{}, inverse, kRounder);
            const Ints rounded = bits_as<Ints>(shifted) - kRounderBits;
            store_bytes(values + i, rounded);
            group = group + rounded;
        }
        group_sums[start / kGroup] = sum_lanes(group);
        total = total + group;
    }
    out.sums[row] = sum_lanes(total);
}

void norm(const float* x, const float* weight, float eps, int size, float* out) {
    const float factor = inverse_rms(x, eps, size);
    for (int i = 0; i < size; i += 16) store(out + i, load(x + i) * factor * (load(weight + i) + 1.0f));
}

void add_norm(float* residual, const float* x, const float* weight, float eps, int size) {
    const float factor = inverse_rms(x, eps, size);
    for (int i = 0; i < size; i += 16)
        store(residual + i, madd(load(x + i) * factor, load(weight + i) + 1.0f, load(residual + i)));
}

// gelu_tanh(x) = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3)
void gelu_gate(const float* gate_up, float* out, int size) {
    for (int i = 0; i < size; i += 16) {
        const Floats gate = load(gate_up + 2 * i), up = load(gate_up + 2 * i + 16);
        const Floats u = madd(gate * gate * gate, 0.044715f, gate) * 0.7978845608028654f;
        store(out + i, gate / (exp_lanes(u * -2.0f) + 1.0f) * up);
    }
}

// `size` may be odd multiples of 2; the pairs are (i, i + size / 2).
void norm_rope(const float* head, const float* weight, float eps, const float* cos, const float* sin, int size,
               float scale, uint16_t* out) {
    const int half = size / 2;
    Floats sums{};
    for (int i = 0; i + 16 <= size; i += 16) sums = madd(load(head + i), load(head + i), sums);
    float squares[16];
    store(squares, sums);
    for (int i = size / 16 * 16; i < size; ++i) squares[i & 15] = madd(head[i], head[i], squares[i & 15]);
    const float factor = 1.0f / __builtin_sqrtf(sum_lanes(load(squares)) / static_cast<float>(size) + eps);
    for (int i = 0; i < half; ++i) {
        const float low = head[i] * factor * (1.0f + weight[i]);
        const float high = head[i + half] * factor * (1.0f + weight[i + half]);
        out[i] = bfloat16_of(madd(low, cos[i], -(high * sin[i])) * scale);
        out[i + half] = bfloat16_of(madd(high, cos[i], low * sin[i]) * scale);
    }
}

void bound_logits(const int32_t* sums, const float* scales, int num_panels, float activation_scale, float rest, float* upper) {
    for (int panel = 0; panel < num_panels; ++panel) {
        const Floats bound = to_floats(load_as<Ints>(sums + 16 * panel)) * 16.0f + rest;
        upper[panel] = max_lanes(bound * load(scales + 16 * panel)) * activation_scale;
    }
}

// Scores of a chunk to exp(score - peak), in place; 0 for keys out of range.
GEMMA3_INLINE void softmax_numerators(float* scores, const KeyRange& range, const QueryRows& rows, int row) {
    for (int i = 0; i < kKeyChunk; ++i) scores[i] = i >= range.first && i < range.last ? scores[i] : -INFINITY;
    Floats peaks = -INFINITY;
    for (int i = 0; i < kKeyChunk; i += 16) peaks = larger(peaks, load(scores + i));
    const float peak = max_lanes(peaks);
    const float shift = peak == -INFINITY ? 0.0f : peak;
    Floats total{};
    for (int i = 0; i < kKeyChunk; i += 16) {
        const Floats p = exp_lanes(load(scores + i) - shift);
        total = total + p;
        store(scores + i, p);
    }
    rows.peaks[row] = peak;
    rows.totals[row] = sum_lanes(total);
}

void merge(float* out, float& peak, float& total, const float* more, float more_peak, float more_total, int head_dim) {
    if (more_peak == -INFINITY) return;
    const float highest = peak > more_peak ? peak : more_peak;
    const Floats old_factor = exp_lanes(peak - highest), new_factor = exp_lanes(more_peak - highest);
    for (int i = 0; i < head_dim; i += 16) store(out + i, madd(load(out + i), old_factor, load(more + i) * new_factor));
    total = madd(total, old_factor.parts[0][0], more_total * new_factor.parts[0][0]);
    peak = highest;
}

}  // namespace
}  // namespace gemma3::GEMMA3_ISA
