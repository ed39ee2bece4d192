#include "isa.h"

#include <stdexcept>

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace gemma3 {
namespace {

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

// AMX's registers are large, so Linux wants to be asked once per process (arch_prctl, ARCH_REQ_XCOMP_PERM).
bool has_amx() {
#if defined(__linux__)
    constexpr int kRequestPermission = 0x1023, kTileData = 18;
    unsigned eax = 7, ebx = 0, ecx = 0, edx = 0;
    __asm__("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    const bool in_processor = (edx >> 22 & 1) && (edx >> 24 & 1) && (edx >> 25 & 1);  // bf16, tile, int8
    return in_processor && __builtin_cpu_supports("avx512bf16") &&
           syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}
#endif

}  // namespace

std::vector<std::string> supported_isas() {
    std::vector<std::string> names{"portable"};
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (has_avx2()) names.push_back("avx2");
    if (has_avx2() && has_avx512()) names.push_back("avx512");
    if (has_avx2() && has_avx512() && has_amx()) names.push_back("amx");
#endif
    return names;
}

const Kernels& kernels_for(const std::string& isa) {
    const std::vector<std::string> supported = supported_isas();
    const std::string name = isa == "auto" ? supported.back() : isa;
    std::string allowed = "auto";
    for (const std::string& candidate : supported) {
        allowed += ", " + candidate;
        if (candidate != name) continue;
#if defined(__x86_64__)
        if (name == "amx") return amx_kernels();
        if (name == "avx512") return avx512_kernels();
        if (name == "avx2") return avx2_kernels();
#endif
        return portable_kernels();
    }
    throw std::invalid_argument("isa='" + isa.substr(0, 60) + "' is not allowed here: one of " + allowed + ".");
}

}  // namespace gemma3
