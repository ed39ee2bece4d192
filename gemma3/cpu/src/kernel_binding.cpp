// gemma3.cpu._native.kernels: the floating-point kernels of one instruction set, called one by one. For tests alone.
//
// Arrays are numpy's own and are written in place, so that a test sees every element that a kernel touches. The checks of
// sizes are those that keep a wrong test from crashing Python; `kernels.h` says what each kernel wants.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <stdexcept>

#include "kernels/isa.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace gemma3 {

void bind_kernels(nb::module_& parent);  // binding.cpp calls it

namespace {

template <typename T, int kDims = 1>
using Array = nb::ndarray<T, nb::ndim<kDims>, nb::c_contig, nb::device::cpu>;
using FloatArray = Array<float>;

void require(bool fits) {
    if (!fits) throw std::invalid_argument("the arrays do not fit each other.");
}

template <typename T>
void require_padded(const Array<T>& array, int size, int unit = 16) {
    require(size > 0 && int64_t(array.shape(0)) >= round_up(size, unit));
}

void rotate(const std::string& isa, const FloatArray& x, int size, int rotation) {
    require_padded(x, size);
    require(rotation > 0 && size % rotation == 0);
    kernels_for(isa).rotate(x.data(), size, rotation);
}

void quantize(const std::string& isa, const FloatArray& x, int size, int rotation, const Array<int8_t, 2>& values,
              const FloatArray& scales, const Array<int32_t, 2>& group_sums, const Array<int32_t>& sums, int row) {
    const int num_rows = int(values.shape(0)), num_inputs = int(values.shape(1));
    require_padded(x, size);
    require(rotation > 0 && size % rotation == 0 && size <= num_inputs && num_inputs % kGroup == 0);
    require(row >= 0 && row < num_rows && int(scales.shape(0)) == num_rows && int(sums.shape(0)) == num_rows);
    require(int(group_sums.shape(0)) == num_rows && int(group_sums.shape(1)) == num_inputs / kGroup);
    Activations out;
    out.values = values.data();
    out.scales = scales.data();
    out.group_sums = group_sums.data();
    out.sums = sums.data();
    out.num_inputs = num_inputs;
    out.num_rows = num_rows;
    kernels_for(isa).quantize(x.data(), size, rotation, out, row);
}

void norm(const std::string& isa, const FloatArray& x, const FloatArray& weight, float eps, int size, const FloatArray& out) {
    for (const FloatArray& array : {x, weight, out}) require_padded(array, size);
    kernels_for(isa).norm(x.data(), weight.data(), eps, size, out.data());
}

void add_norm(const std::string& isa, const FloatArray& residual, const FloatArray& x, const FloatArray& weight, float eps,
              int size) {
    for (const FloatArray& array : {residual, x, weight}) require_padded(array, size);
    kernels_for(isa).add_norm(residual.data(), x.data(), weight.data(), eps, size);
}

void gelu_gate(const std::string& isa, const FloatArray& gate_up, const FloatArray& out, int size) {
    require_padded(gate_up, 2 * round_up(size, kPanel));
    require_padded(out, size);
    kernels_for(isa).gelu_gate(gate_up.data(), out.data(), size);
}

void norm_rope(const std::string& isa, const FloatArray& head, const FloatArray& weight, float eps, const FloatArray& cos,
               const FloatArray& sin, float scale, const Array<uint16_t>& out) {
    const size_t size = head.shape(0);
    require(size % 2 == 0 && weight.shape(0) == size && out.shape(0) == size);
    require(cos.shape(0) == size / 2 && sin.shape(0) == size / 2);
    kernels_for(isa).norm_rope(head.data(), weight.data(), eps, cos.data(), sin.data(), int(size), scale, out.data());
}

void bound_logits(const std::string& isa, const Array<int32_t>& sums, const FloatArray& scales, float activation_scale,
                  float rest, const FloatArray& upper) {
    const int num_panels = int(upper.shape(0));
    require(int(sums.shape(0)) == kPanel * num_panels && int(scales.shape(0)) == kPanel * num_panels);
    kernels_for(isa).bound_logits(sums.data(), scales.data(), num_panels, activation_scale, rest, upper.data());
}

// keys (blocks, head_dim / 2, 16, 2), values (blocks, 8, head_dim, 2), ranges (rows, 2) half-open.
void attend(const std::string& isa, const Array<uint16_t, 2>& queries, const Array<uint16_t, 4>& keys,
            const Array<uint16_t, 4>& values, const Array<int32_t, 2>& ranges, const Array<float, 2>& out,
            const FloatArray& peaks, const FloatArray& totals) {
    const int num_rows = int(ranges.shape(0)), head_dim = int(queries.shape(1)), num_blocks = int(keys.shape(0));
    const int64_t block = int64_t{kBlockSize} * head_dim;
    require(num_rows > 0 && num_rows <= kMaxRows && head_dim % 32 == 0 && num_blocks > 0 && kBlockSize * num_blocks <= kKeyChunk);
    require(int64_t(keys.size()) == num_blocks * block && int64_t(values.size()) == num_blocks * block);
    require(queries.shape(0) == kMaxRows && out.shape(0) == kMaxRows && peaks.shape(0) == kMaxRows &&
            totals.shape(0) == kMaxRows && int(out.shape(1)) == head_dim && ranges.shape(1) == 2);
    KeyBlocks blocks;
    blocks.num_blocks = num_blocks;
    for (int b = 0; b < num_blocks; ++b) {
        blocks.keys[b] = keys.data() + b * block;
        blocks.values[b] = values.data() + b * block;
    }
    KeyRange row_ranges[kMaxRows];
    for (int row = 0; row < num_rows; ++row) row_ranges[row] = {ranges(row, 0), ranges(row, 1)};
    const QueryRows rows{queries.data(), out.data(), peaks.data(), totals.data(), num_rows, head_dim};
    kernels_for(isa).attend(rows, blocks, row_ranges);
}

// `peak_total` holds both of what was there before.
void merge(const std::string& isa, const FloatArray& out, const FloatArray& peak_total, const FloatArray& more,
           float more_peak, float more_total) {
    require(out.shape(0) % 16 == 0 && more.shape(0) == out.shape(0) && peak_total.shape(0) == 2);
    kernels_for(isa).merge(out.data(), peak_total(0), peak_total(1), more.data(), more_peak, more_total, int(out.shape(0)));
}

}  // namespace

void bind_kernels(nb::module_& parent) {
    nb::module_ m = parent.def_submodule("kernels");
    m.def("rotate", &rotate, "isa"_a, "x"_a, "size"_a, "rotation"_a);
    m.def("quantize", &quantize, "isa"_a, "x"_a, "size"_a, "rotation"_a, "values"_a, "scales"_a, "group_sums"_a, "sums"_a,
          "row"_a);
    m.def("norm", &norm, "isa"_a, "x"_a, "weight"_a, "eps"_a, "size"_a, "out"_a);
    m.def("add_norm", &add_norm, "isa"_a, "residual"_a, "x"_a, "weight"_a, "eps"_a, "size"_a);
    m.def("gelu_gate", &gelu_gate, "isa"_a, "gate_up"_a, "out"_a, "size"_a);
    m.def("norm_rope", &norm_rope, "isa"_a, "head"_a, "weight"_a, "eps"_a, "cos"_a, "sin"_a, "scale"_a, "out"_a);
    m.def("bound_logits", &bound_logits, "isa"_a, "sums"_a, "scales"_a, "activation_scale"_a, "rest"_a, "upper"_a);
    m.def("attend", &attend, "isa"_a, "queries"_a, "keys"_a, "values"_a, "ranges"_a, "out"_a, "peaks"_a, "totals"_a);
    m.def("merge", &merge, "isa"_a, "out"_a, "peak_total"_a, "more"_a, "more_peak"_a, "more_total"_a);
}

}  // namespace gemma3
