// Plain C++: every processor, and the twin that the floating-point kernels of the others are tested against.
#define GEMMA3_ISA portable

#include <cstring>

#include "attend.h"
#include "by_panel.h"
#include "table.h"

namespace gemma3::portable {
namespace {

void dot(const uint8_t* bytes, const int8_t* values, int num_inputs, int32_t* sums) {
    for (int o = 0; o < kPanel; ++o) sums[o] = 0;
    for (int i = 0; i < num_inputs; i += kLineInputs)
        for (int o = 0; o < kPanel; ++o)
            for (int k = 0; k < kLineInputs; ++k)
                sums[o] += bytes[line_offset(i) + kLineInputs * o + k] * values[i + k];
}

}  // namespace
}  // namespace gemma3::portable

const gemma3::Kernels& gemma3::portable_kernels() {
    static constexpr Kernels kernels = portable::kernel_table("portable");
    return kernels;
}
