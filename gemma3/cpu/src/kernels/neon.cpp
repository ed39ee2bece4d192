// NEON as every 64-bit ARM processor has it: products of bytes are widened to 16 bits.
#define GEMMA3_ISA neon

#include "neon_attend.h"
#include "neon.h"
#include "table.h"

const gemma3::Kernels& gemma3::neon_kernels() {
    static constexpr Kernels kernels = neon::kernel_table("neon");
    return kernels;
}
