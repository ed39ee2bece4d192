// Which instruction sets this processor has, and the kernels written for each.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace gemma3 {

// Those of portable, avx2, avx512, amx that this processor (and this build) can run; the best last. Found out once.
std::vector<std::string> supported_isas();

// The kernels of one of `supported_isas()`, or of the best for "auto". Throws std::invalid_argument for any other name.
const Kernels& kernels_for(const std::string& isa);

}  // namespace gemma3
