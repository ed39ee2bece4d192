// AVX512 with VNNI.
#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <utility>

#include "kernels.h"

namespace gemma3 {
namespace {

#include "lanes.inl"
#include "rows.inl"
#include "attend.inl"
#include "unpack.inl"
#include "vnni.inl"

void matmul(const Matrix& matrix, const Activations& in, int first_panel, int last_panel, float* out, int64_t out_stride,
            uint8_t* scratch) {
    vnni_product(matrix, in, first_panel, last_panel, FloatOut{matrix, in, out, out_stride}, scratch);
}

void matmul_nibbles(const Matrix& matrix, const Activations& in, int first_panel, int last_panel, int32_t* out,
                    int64_t out_stride, uint8_t* scratch) {
    vnni_product(matrix, in, first_panel, last_panel, IntOut{out, out_stride, first_panel}, scratch);
}

}  // namespace

const Kernels& avx512_kernels() {
    static const Kernels kernels{"avx512", matmul,   matmul_nibbles, bound_logits, rotate, quantize,
                                 norm,     add_norm, gelu_gate,      norm_rope, attend, merge};
    return kernels;
}

}  // namespace gemma3
