// The table of an instruction set's kernels: its file includes this last.
#pragma once

#include "kernels.h"
#include "planes.h"
#include "rows.h"
#include "target.h"

namespace gemma3::GEMMA3_ISA {
namespace {

// These differ between instruction sets; the others come from rows.h and planes.h.
void matmul(const Matrix&, const Activations&, int first_panel, int last_panel, float* out, int64_t out_stride, uint8_t* scratch);
void matmul_nibbles(const Matrix&, const Activations&, int first_panel, int last_panel, int32_t* out, int64_t out_stride,
                    uint8_t* scratch);
void attend(const QueryRows&, const KeyBlocks&, const KeyRange* ranges);

constexpr Kernels kernel_table(const char* name) {
    return {
        .name = name,
        .matmul = matmul,
        .matmul_nibbles = matmul_nibbles,
        .join_planes = join_planes,
        .bound_logits = bound_logits,
        .rotate = rotate,
        .quantize = quantize,
        .norm = norm,
        .add_norm = add_norm,
        .gelu_gate = gelu_gate,
        .norm_rope = norm_rope,
        .attend = attend,
        .merge = merge,
    };
}

}  // namespace
}  // namespace gemma3::GEMMA3_ISA
