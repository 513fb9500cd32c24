// All sets of inner loops. Each has a separate file, compiled for its instruction set.
#pragma once

#include "isa.hpp"

namespace maskmill {

extern const Kernels avx2_f32;
extern const Kernels avx512_f32;
extern const Kernels avx512_vnni;
extern const Kernels avx512_bf16;
extern const Kernels amx_i8;
extern const Kernels amx_bf16;

}  // namespace maskmill
