// What is written once per instruction set. Everything above (model, attention over blocks, head) is plain C++.
//
// Two rules make a row's result independent of what else is in the batch, bit for bit:
//   * products of weights and activations are sums of integers, exact in any order;
//   * every floating-point operation of a row is done in the same order, however many rows there are. Which products and
//     sums are rounded once is written in the source (`madd`): all files are compiled with -ffp-contract=off.
#pragma once

#include <cstdint>

#include "numbers.h"
#include "panels.h"

namespace gemma3 {

constexpr int kBlockSize = 16;  // tokens in a block of the KV cache
constexpr int kKeyChunk = 128;  // keys whose softmax is taken at a time, counted from position 0
constexpr int kMaxRows = 32;    // query rows (token x head) that attend together
constexpr int kWideRows = 32;   // rows of activations that a product may keep in another form
constexpr float kNothing = 1e-35f;  // a row whose largest value is not above it is quantised to zeros: 127 / peak is finite above

enum class Format { kInt8, kInt4, kNibbles };  // panels.h draws the layouts

// A packed matrix. The bytes belong to the packed file.
struct Matrix {
    Format format = Format::kInt8;
    int num_panels = 0;
    int num_inputs = 0;  // padded to kGroup
    const uint8_t* panels = nullptr;
    const uint8_t* multipliers = nullptr;  // kInt4 only
    const float* scales = nullptr;
    // Of int8 panels: two planes of as many panels that are read after the product, for kernels to bring near. Null: none.
    const uint8_t* next[2] = {};

    int64_t panel_bytes() const { return int64_t{kPanel} * num_inputs / (format == Format::kInt8 ? 1 : 2); }
    // The panels [first, first + count).
    Matrix slice(int first, int count) const {
        const uint8_t* factors = multipliers ? multipliers + int64_t{first} * kPanel * (num_inputs / kGroup) : nullptr;
        return {format, count, num_inputs, panels + first * panel_bytes(), factors, scales + int64_t{first} * kPanel, {}};
    }
};

// Rows of quantised activations: value = scale * int8. Padded inputs are 0.
struct Activations {
    int8_t* values = nullptr;  // (rows rounded up to 32, num_inputs)
    float* scales = nullptr;
    int32_t* group_sums = nullptr;  // of the values of each kGroup inputs: (rows, num_inputs / kGroup)
    int32_t* sums = nullptr;        // of the int8 values of a row
    int num_inputs = 0;
    int num_rows = 0;

    // The rows [first, first + count).
    Activations slice(int first, int count) const {
        return {values + int64_t{first} * num_inputs, scales + first, group_sums + int64_t{first} * (num_inputs / kGroup),
                sums + first, num_inputs, count};
    }
};

// One chunk of keys and values, as the blocks of the KV cache hold them.
struct KeyBlocks {
    const uint16_t* keys[kKeyChunk / kBlockSize];    // [head_dim / 2][16 tokens][2] bfloat16
    const uint16_t* values[kKeyChunk / kBlockSize];  // [16 tokens / 2][head_dim][2] bfloat16
    int num_blocks;
};

// Rows of queries (bfloat16, already scaled) and what one chunk of keys gives each: `peaks` its largest score, `totals` the
// sum of exp(score - peak), `out` (num_rows, head_dim) the sum of exp(score - peak) * value. Room for kMaxRows rows.
struct QueryRows {
    const uint16_t* queries;
    float* out;
    float* peaks;
    float* totals;
    int num_rows;
    int head_dim;  // a multiple of 32
};

struct KeyRange {
    int first, last;  // a row sees the keys [first, last) of the chunk
};

// Memory of a row in another form: its values, and up to twice as much about some of them.
constexpr int64_t wide_row_bytes(int num_inputs) { return int64_t{3} * num_inputs + kLine; }
// Memory for a product: its panels unpacked, and kWideRows rows in another form.
constexpr int64_t product_scratch(int64_t num_panels, int num_inputs) {
    return kPanel * num_panels * num_inputs + kWideRows * wide_row_bytes(num_inputs);
}

struct Kernels {
    const char* name;

    // out[row][16 * panel ...] = dequantised products, for the panels [first, last) and all rows. `scratch` has
    // product_scratch(last - first, num_inputs) bytes.
    void (*matmul)(const Matrix&, const Activations&, int first_panel, int last_panel, float* out, int64_t out_stride,
                   uint8_t* scratch);
    // Integer sums of nibbles (0..15) times activations: out[row][16 * (panel - first_panel) ...].
    void (*matmul_nibbles)(const Matrix&, const Activations&, int first_panel, int last_panel, int32_t* out,
                           int64_t out_stride, uint8_t* scratch);
    // Lines of nibbles of two planes to twice as many lines of an int8 panel: bytes 16 * high + low.
    void (*join_planes)(const uint8_t* high, const uint8_t* low, int64_t num_lines, uint8_t* bytes);
    // The largest of scale * (16 * sum + rest) of each panel.
    void (*bound_logits)(const int32_t* sums, const float* scales, int num_panels, float activation_scale, float rest,
                         float* upper);

    // The normalised block-diagonal Hadamard transform, in place. Sizes of all rows: padded to 16 with zeros.
    void (*rotate)(float* x, int size, int rotation);
    // x, rotated (in place) and quantised into row `row`.
    void (*quantize)(float* x, int size, int rotation, Activations&, int row);
    // out = x * (1 + weight) / rms(x)
    void (*norm)(const float* x, const float* weight, float eps, int size, float* out);
    // residual += x * (1 + weight) / rms(x)
    void (*add_norm)(float* residual, const float* x, const float* weight, float eps, int size);
    // out = gelu_tanh(gate) * up, where gate and up lie in alternating runs of 16.
    void (*gelu_gate)(const float* gate_up, float* out, int size);
    // A head of q or k: RMSNorm, RoPE, times `scale`, to bfloat16.
    void (*norm_rope)(const float* head, const float* weight, float eps, const float* cos, const float* sin, int size,
                      float scale, uint16_t* out);
    // One chunk of keys for all rows. A row that sees none of them gets the peak -inf and the total 0.
    void (*attend)(const QueryRows&, const KeyBlocks&, const KeyRange* ranges);
    // Add the sums of a later chunk to those of the chunks before. `into` starts as peak -inf, total 0, out 0.
    void (*merge)(float* out, float& peak, float& total, const float* more, float more_peak, float more_total, int head_dim);
};

const Kernels& portable_kernels();
#if defined(__x86_64__)
const Kernels& avx2_kernels();
const Kernels& avxvnni_kernels();
const Kernels& avx512_kernels();
const Kernels& amx_kernels();
#elif defined(__aarch64__)
const Kernels& neon_kernels();
const Kernels& dotprod_kernels();
const Kernels& i8mm_kernels();
#endif

}  // namespace gemma3
