// AVX512 with VNNI.
#define GEMMA3_ISA avx512

#include <cstring>

#include "attend.h"
#include "vnni.h"
#include "table.h"

namespace gemma3::avx512 {
namespace {

void matmul(const Matrix& matrix, const Activations& in, int first_panel, int last_panel, float* out, int64_t out_stride,
            uint8_t* scratch) {
    vnni_product(matrix, in, first_panel, last_panel, FloatOut{matrix, in, out, out_stride}, scratch);
}

void matmul_nibbles(const Matrix& matrix, const Activations& in, int first_panel, int last_panel, int32_t* out,
                    int64_t out_stride, uint8_t* scratch) {
    vnni_product(matrix, in, first_panel, last_panel, IntOut{out, out_stride, first_panel}, scratch);
}

}  // namespace
}  // namespace gemma3::avx512

const gemma3::Kernels& gemma3::avx512_kernels() {
    static constexpr Kernels kernels = avx512::kernel_table("avx512");
    return kernels;
}
