// The instruction set that the including file is compiled for. Each such file defines GEMMA3_ISA before it includes anything;
// all that the headers below contain then lies in a namespace of that name, which profiles and backtraces show.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "numbers.h"

#if !defined(GEMMA3_ISA)
#define GEMMA3_ISA portable  // a tool that reads one of the headers by itself
#endif
