// Which instruction sets this processor has, and the kernels written for each.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace gemma3 {

// Those that this processor (and this build) can run, the best last: portable, then avx2, avxvnni,
// avx512, amx, or neon, dotprod, i8mm. Found out once.
std::vector<std::string> supported_isas();

// The kernels of one of `supported_isas()`, or of the best for "auto". Throws std::invalid_argument for any other name.
const Kernels& kernels_for(const std::string& isa);

}  // namespace gemma3
