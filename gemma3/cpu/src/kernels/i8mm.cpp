// NEON with 8-bit matrix products (ARMv8.6): one instruction multiplies 2 outputs with 8 inputs of 2 rows.
#define GEMMA3_ISA i8mm

#include "neon_attend.h"
#include "neon.h"
#include "table.h"

const gemma3::Kernels& gemma3::i8mm_kernels() {
    static constexpr Kernels kernels = i8mm::kernel_table("i8mm");
    return kernels;
}
