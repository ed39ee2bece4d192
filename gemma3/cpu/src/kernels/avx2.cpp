// AVX2 and FMA. Without VNNI, bytes are widened to 16 bits first: vpmaddubsw would saturate.
#define GEMMA3_ISA avx2

#include <cstring>

#include "attend.h"
#include "by_panel.h"
#include "table.h"

namespace gemma3::avx2 {
namespace {

void dot(const uint8_t* bytes, const int8_t* values, int num_inputs, int32_t* sums) {
    __m256i pairs[4] = {};  // of 4 outputs each, two partial sums for each output
    for (int i = 0; i < num_inputs; i += 4) {
        int32_t packed;
        memcpy(&packed, values + i, 4);
        const __m256i inputs = _mm256_cvtepi8_epi16(_mm_set1_epi32(packed));
        for (int q = 0; q < 4; ++q) {
            const __m128i weights = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + line_offset(i) + 16 * q));
            pairs[q] = _mm256_add_epi32(pairs[q], _mm256_madd_epi16(_mm256_cvtepu8_epi16(weights), inputs));
        }
    }
    for (int half = 0; half < 2; ++half) {
        // hadd works within 128-bit lanes: outputs come out as 0 1 4 5 2 3 6 7.
        const __m256i folded = _mm256_hadd_epi32(pairs[2 * half], pairs[2 * half + 1]);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + 8 * half), _mm256_permute4x64_epi64(folded, 0xd8));
    }
}

}  // namespace
}  // namespace gemma3::avx2

const gemma3::Kernels& gemma3::avx2_kernels() {
    static constexpr Kernels kernels = avx2::kernel_table("avx2");
    return kernels;
}
