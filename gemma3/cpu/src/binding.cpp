// The Python module gemma3.cpu._native; its types stand in gemma3/cpu/_native.pyi.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <utility>

#include "kernels/isa.h"
#include "model.h"
#include "quantize.h"
#include "sampling.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace gemma3 {

void bind_kernels(nb::module_& parent);  // kernel_binding.cpp

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Ids = std::vector<int32_t>;

// As engine/token_mask.py writes it, on a machine that is little-endian as well.
TokenMask mask_of(const nb::bytes& bits) {
    std::vector<uint32_t> words(bits.size() / sizeof(uint32_t));
    if (bits.size() % sizeof(uint32_t)) throw std::invalid_argument("allowed is no list of 32-bit words.");
    std::copy_n(bits.c_str(), bits.size(), reinterpret_cast<char*>(words.data()));
    return TokenMask(std::move(words));
}

template <typename T>
nb::bytes to_bytes(const std::vector<T>& values) {
    return nb::bytes(values.data(), values.size() * sizeof(T));
}

template <typename Quantize>
PackedRows quantize_rows(const Rows& rows, const Quantize& quantize) {
    const nb::gil_scoped_release release;
    return quantize(kernels_for("auto"), rows.data(), int(rows.shape(0)), int(rows.shape(1)));
}

nb::object quantize_int8_rows(const Rows& rows) {
    const PackedRows packed = quantize_rows(rows, quantize_int8);
    return nb::make_tuple(to_bytes(packed.panels), to_bytes(packed.scales));
}

nb::object quantize_int4_rows(const Rows& rows) {
    const PackedRows packed = quantize_rows(rows, quantize_int4);
    return nb::make_tuple(to_bytes(packed.panels), to_bytes(packed.multipliers), to_bytes(packed.scales));
}

nb::object quantize_embedding_rows(const Rows& rows) {
    const PackedRows packed = quantize_rows(rows, quantize_embedding);
    return nb::make_tuple(to_bytes(packed.panels), to_bytes(packed.low), to_bytes(packed.scales));
}

using Values = nb::ndarray<const int8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// A product by one instruction set's kernel, for tests: activations of scale 1; of nibbles the plain sums.
nb::ndarray<nb::numpy, float> multiply_rows(const std::string& isa, const std::string& format, const Bytes& panels,
                                            const Bytes& multipliers, const Bytes& scales, const Values& values) {
    const Kernels& kernels = kernels_for(isa);
    const int num_rows = int(values.shape(0)), num_inputs = int(values.shape(1)), groups = num_inputs / kGroup;
    ActivationBuffer memory;
    const Activations in = memory.of(num_rows, num_inputs);
    for (int row = 0; row < num_rows; ++row) {
        in.scales[row] = 1.0f;
        in.sums[row] = 0;
        for (int i = 0; i < num_inputs; ++i) {
            const int8_t value = values(row, i);
            in.values[int64_t{row} * num_inputs + i] = value;
            in.group_sums[int64_t{row} * groups + i / kGroup] += value;
            in.sums[row] += value;
        }
    }
    Matrix matrix;
    matrix.format = format == "int8" ? Format::kInt8 : format == "int4" ? Format::kInt4 : Format::kNibbles;
    matrix.num_inputs = num_inputs;
    matrix.num_panels = int(scales.size() / (kPanel * sizeof(float)));
    matrix.panels = panels.data();
    matrix.multipliers = multipliers.data();
    matrix.scales = reinterpret_cast<const float*>(scales.data());
    const int64_t num_outputs = int64_t{matrix.num_panels} * kPanel;
    if (num_inputs % kGroup || int64_t(panels.size()) != matrix.num_panels * matrix.panel_bytes())
        throw std::invalid_argument("the panels do not fit the values.");
    Buffer<uint8_t> scratch(product_scratch(matrix.num_panels, num_inputs));
    auto* out = new std::vector<float>(size_t(num_rows * num_outputs));
    nb::capsule owner(out, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
    if (matrix.format == Format::kNibbles) {
        std::vector<int32_t> sums(out->size());
        kernels.matmul_nibbles(matrix, in, 0, matrix.num_panels, sums.data(), num_outputs, scratch.data());
        std::copy(sums.begin(), sums.end(), out->begin());  // below 2^24, so exact
    } else {
        kernels.matmul(matrix, in, 0, matrix.num_panels, out->data(), num_outputs, scratch.data());
    }
    return nb::ndarray<nb::numpy, float>(out->data(), {size_t(num_rows), size_t(num_outputs)}, owner);
}

void bind_requests(nb::module_& m) {
    nb::class_<Segment>(m, "Segment")
        .def("__init__", [](Segment* self, int start_position, int num_tokens, Ids global_blocks, Ids sliding_blocks,
                            int first_sliding_block) {
            new (self) Segment{start_position, num_tokens, std::move(global_blocks), std::move(sliding_blocks), first_sliding_block};
        }, "start_position"_a, "num_tokens"_a, "global_blocks"_a, "sliding_blocks"_a, "first_sliding_block"_a);

    nb::class_<RowRequest> request(m, "RowRequest");
    request
        .def("__init__", [](RowRequest* self, int row, int num_logprobs, int target, bool wants_rank) {
            new (self) RowRequest();
            self->row = row;
            self->num_logprobs = num_logprobs;
            self->target = target;
            self->wants_rank = wants_rank;
        }, "row"_a, nb::kw_only(), "num_logprobs"_a = -1, "target"_a = -1, "wants_rank"_a = false)
        .def_rw("uniform", &RowRequest::uniform)
        .def_rw("seen", &RowRequest::seen)
        .def_rw("output_counts", &RowRequest::output_counts)
        .def_rw("logit_bias", &RowRequest::logit_bias)
        .def_rw("banned", &RowRequest::banned)
        .def_prop_rw("allowed", [](const RowRequest& self) { return to_bytes(self.allowed.words()); },
                     [](RowRequest& self, const nb::bytes& mask) { self.allowed = mask_of(mask); })
        .def_rw("reported", &RowRequest::reported);
#define GEMMA3_ATTRIBUTE(Type, name, neutral)                                        \
    request.def_prop_rw(#name, [](const RowRequest& self) { return self.name; },     \
                        [](RowRequest& self, double value) { self.name = setting_of<Type>(value); });
    GEMMA3_ROW_SETTINGS(GEMMA3_ATTRIBUTE)
#undef GEMMA3_ATTRIBUTE

    nb::class_<Sampled>(m, "Sampled")
        .def_ro("token_id", &Sampled::token_id)
        .def_ro("is_finite", &Sampled::is_finite)
        .def_ro("logprob", &Sampled::logprob)
        .def_ro("rank", &Sampled::rank)
        .def_ro("top", &Sampled::top);
}

// Holds on to the buffers that the packed tensors lie in.
struct OwnedModel {
    std::map<std::string, Bytes> buffers;
    Model model;
};

Tensors views_of(const std::map<std::string, Bytes>& buffers) {
    Tensors tensors;
    for (const auto& [name, bytes] : buffers) tensors[name] = {bytes.data(), bytes.size()};
    return tensors;
}

void bind_model(nb::module_& m) {
    nb::class_<OwnedModel>(m, "Model")
        .def("__init__", [](OwnedModel* self, int vocab_size, int hidden_size, int intermediate_size, int num_layers,
                            int num_heads, int num_kv_heads, int head_dim, float rms_norm_eps, float query_scale,
                            double rope_theta, double rope_local_theta, int sliding_window, const std::vector<bool>& is_sliding,
                            const std::map<std::string, Bytes>& tensors, int num_threads, const std::string& isa) {
            const ModelConfig config{vocab_size, hidden_size, intermediate_size, num_layers, num_heads, num_kv_heads, head_dim,
                                     rms_norm_eps, query_scale, rope_theta, rope_local_theta, sliding_window, is_sliding};
            new (self) OwnedModel{tensors, Model(config, views_of(tensors), num_threads, isa)};
        }, nb::kw_only(), "vocab_size"_a, "hidden_size"_a, "intermediate_size"_a, "num_layers"_a, "num_heads"_a,
           "num_kv_heads"_a, "head_dim"_a, "rms_norm_eps"_a, "query_scale"_a, "rope_theta"_a, "rope_local_theta"_a,
           "sliding_window"_a, "is_sliding"_a, "tensors"_a, "num_threads"_a, "isa"_a = "auto")
        .def_prop_ro("isa", [](const OwnedModel& self) { return self.model.isa(); })
        .def_prop_ro("num_threads", [](const OwnedModel& self) { return self.model.num_threads(); })
        .def("allocate_kv", [](OwnedModel& self, int num_global_blocks, int num_sliding_blocks) {
            self.model.allocate_kv(num_global_blocks, num_sliding_blocks);
        }, "num_global_blocks"_a, "num_sliding_blocks"_a)
        .def("copy_block", [](OwnedModel& self, int source, int target, bool sliding) {
            self.model.copy_block(source, target, sliding);
        }, "source"_a, "target"_a, "sliding"_a)
        .def("step", [](OwnedModel& self, const Ids& token_ids, const std::vector<Segment>& segments,
                        const std::vector<RowRequest>& rows) { return self.model.step(token_ids, segments, rows); },
             "token_ids"_a, "segments"_a, "rows"_a, nb::call_guard<nb::gil_scoped_release>())
        .def("observe_inputs", [](OwnedModel& self, const Ids& token_ids) {
            std::map<std::string, std::vector<float>> observed;
            {
                const nb::gil_scoped_release release;
                observed = self.model.observe_inputs(token_ids);
            }
            nb::dict result;
            for (const auto& [name, squares] : observed) result[name.c_str()] = to_bytes(squares);
            return result;
        }, "token_ids"_a)
        .def("logits", [](OwnedModel& self, const Ids& token_ids, const std::vector<Segment>& segments, const Ids& rows) {
            auto* values = new std::vector<float>(self.model.logits(token_ids, segments, rows));
            nb::capsule owner(values, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
            const size_t num_rows = rows.size(), width = num_rows ? values->size() / num_rows : 0;
            return nb::ndarray<nb::numpy, float>(values->data(), {num_rows, width}, owner);
        }, "token_ids"_a, "segments"_a, "rows"_a);
}

}  // namespace
}  // namespace gemma3

NB_MODULE(_native, m) {
    using namespace gemma3;
    m.def("supported_isas", &supported_isas);
    m.def("quantize_int8", &quantize_int8_rows, "rows"_a);
    m.def("quantize_int4", &quantize_int4_rows, "rows"_a);
    m.def("quantize_embedding", &quantize_embedding_rows, "rows"_a);
    bind_requests(m);
    bind_model(m);
    bind_kernels(m);
    m.def("multiply", &multiply_rows, "isa"_a, "kind"_a, "panels"_a, "multipliers"_a, "scales"_a, "values"_a);
    m.def("sample", [](nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu> logits, const RowRequest& row) {
        row.validate(int(logits.shape(0)));
        SamplingScratch scratch;
        return sample(logits.data(), int(logits.shape(0)), row, scratch);
    }, "logits"_a, "row"_a);
}
