// Loops over a whole vocabulary exist for several widths where the loader can choose (glibc), and give the same bits.
#pragma once

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GLIBC__) && !defined(__clang__)
#define GEMMA3_WIDE __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define GEMMA3_WIDE
#endif
