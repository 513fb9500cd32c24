#include "isa.hpp"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "sets.hpp"

namespace maskmill {

namespace {

// Best first.
const Kernels* const kAll[] = {&amx_i8, &avx512_vnni, &amx_bf16, &avx512_bf16, &avx512_f32, &avx2_f32, nullptr};

bool avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
}

// Bits of CPUID leaf 7, EDX; see Intel's Software Developer's Manual, volume 2A, CPUID.
constexpr unsigned kAmxBf16 = 1u << 22;
constexpr unsigned kAmxTile = 1u << 24;
constexpr unsigned kAmxInt8 = 1u << 25;

// Linux grants the tile registers on request; see Documentation/arch/x86/xstate.rst.
bool amx_allowed() {
    constexpr long kRequestPermission = 0x1023;
    constexpr long kTileData = 18;
    static const bool allowed = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
    return allowed;
}

bool amx(unsigned kind) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
    return (d & kAmxTile) != 0 && (d & kind) != 0 && amx_allowed();
}

// Intel's cores (seen on Emerald Rapids) take 1.8 times as long for products in bf16 as for those in f32.
bool is_slower_than_f32(const Kernels& kernels) {
    __builtin_cpu_init();
    return &kernels == &avx512_bf16 && __builtin_cpu_is("intel");
}

}  // namespace

bool runs_here(const Kernels& kernels) {
    __builtin_cpu_init();
    if (&kernels == &avx2_f32) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (!avx512()) return false;
    if (&kernels == &avx512_vnni) return __builtin_cpu_supports("avx512vnni");
    if (&kernels == &avx512_bf16) return __builtin_cpu_supports("avx512bf16");
    if (&kernels == &amx_i8) return amx(kAmxInt8);
    if (&kernels == &amx_bf16) return __builtin_cpu_supports("avx512bf16") && amx(kAmxBf16);
    return true;
}

const Kernels* choose(Arithmetic arithmetic, const char* name) {
    for (const Kernels* const* one = kAll; *one != nullptr; ++one) {
        if ((*one)->arithmetic != arithmetic) continue;
        if (name != nullptr && std::strcmp(name, (*one)->name) != 0) continue;
        if (runs_here(**one)) return name == nullptr && is_slower_than_f32(**one) ? choose(Arithmetic::f32) : *one;
    }
    return nullptr;
}

const Kernels* const* all_kernels() { return kAll; }

int channel_at(Arithmetic arithmetic, int position) {
    if (arithmetic == Arithmetic::bf16) {  // blocks of 32: even channels, then odd ones
        const int within = position % 32;
        return position - within + (within < 16 ? 2 * within : 2 * (within - 16) + 1);
    }
    if (arithmetic == Arithmetic::i8) {  // blocks of 64: in each 128-bit part 8 channels of each half
        const int within = position % 64;
        return position - within + 32 * (within % 16 / 8) + 8 * (within / 16) + within % 8;
    }
    return position;
}

}  // namespace maskmill
