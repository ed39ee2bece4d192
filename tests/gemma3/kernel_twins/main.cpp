// The kernels of every instruction set that this processor has, against plain arithmetic. Prints their names.
#include "twins.h"

#include <cstdio>
#include <cstdlib>

namespace twins {

void require(bool holds, const Kernels& kernels, const std::string& what) {
    if (holds) return;
    std::fprintf(stderr, "%s: %s\n", kernels.name, what.c_str());
    std::exit(1);
}

Words rounded(const Floats& x) {
    Words words;
    for (const float value : x) words.push_back(gemma3::bfloat16_of(value));
    return words;
}

}  // namespace twins

int main() {
    std::vector<const gemma3::Kernels*> all;
    std::printf("isas:");
    for (const std::string& name : gemma3::supported_isas()) {
        all.push_back(&gemma3::kernels_for(name));
        std::printf(" %s", name.c_str());
    }
    std::printf("\nproducts: %lld equal\n", static_cast<long long>(twins::test_products(all)));
    std::printf("rows: %lld near\n", static_cast<long long>(twins::test_rows(all)));
    std::printf("attention: %lld near\n", static_cast<long long>(twins::test_attention(all)));
}
