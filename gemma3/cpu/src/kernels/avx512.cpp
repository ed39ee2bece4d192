// AVX512 with VNNI.
#define GEMMA3_ISA avx512

#include <cstring>

#include "attend.h"
#include "vnni.h"
#include "table.h"

namespace gemma3::avx512 {
namespace {

template <typename Out>
GEMMA3_INLINE void product(const Matrix& matrix, const Activations& in, int first, int last, const Out& out, uint8_t* scratch) {
    vnni_product(matrix, in, first, last, out, scratch);
}

}  // namespace
}  // namespace gemma3::avx512

#include "products.h"

const gemma3::Kernels& gemma3::avx512_kernels() {
    static constexpr Kernels kernels = avx512::kernel_table("avx512");
    return kernels;
}
