#include "isa.h"

#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace gemma3 {
namespace {

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

#if defined(GEMMA3_EMULATE)
bool has_avxvnni() { return true; }
bool has_avx512() { return true; }
bool has_amx() { return true; }
#else
// By its bit of cpuid: older compilers have no name for it.
bool has_avxvnni() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
}

bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

// AMX's registers are large, so Linux wants to be asked once per process (arch_prctl, ARCH_REQ_XCOMP_PERM).
bool has_amx() {
#if defined(__linux__)
    constexpr int kRequestPermission = 0x1023, kTileData = 18;
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx);
    const bool in_processor = (edx >> 22 & 1) && (edx >> 24 & 1) && (edx >> 25 & 1);  // bf16, tile, int8
    return in_processor && __builtin_cpu_supports("avx512bf16") &&
           syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}
#endif
#endif

std::vector<const Kernels*> find_supported() {
    std::vector<const Kernels*> found{&portable_kernels()};
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!has_avx2()) return found;
    found.push_back(&avx2_kernels());
    if (has_avxvnni()) found.push_back(&avxvnni_kernels());
    if (!has_avx512()) return found;
    found.push_back(&avx512_kernels());
    if (has_amx()) found.push_back(&amx_kernels());
#endif
    return found;
}

// The best last.
const std::vector<const Kernels*>& supported() {
    static const std::vector<const Kernels*> found = find_supported();
    return found;
}

}  // namespace

std::vector<std::string> supported_isas() {
    std::vector<std::string> names;
    for (const Kernels* kernels : supported()) names.emplace_back(kernels->name);
    return names;
}

const Kernels& kernels_for(const std::string& isa) {
    if (isa == "auto") return *supported().back();
    std::string allowed = "auto";
    for (const Kernels* kernels : supported()) {
        if (isa == kernels->name) return *kernels;
        allowed += std::string(", ") + kernels->name;
    }
    throw std::invalid_argument("isa='" + isa.substr(0, 60) + "' is not allowed here: one of " + allowed + ".");
}

}  // namespace gemma3
