// NEON with the dot product (ARMv8.2): one instruction multiplies 4 outputs with 4 inputs.
#define GEMMA3_ISA dotprod

#include "neon_attend.h"
#include "neon.h"
#include "table.h"

const gemma3::Kernels& gemma3::dotprod_kernels() {
    static constexpr Kernels kernels = dotprod::kernel_table("dotprod");
    return kernels;
}
