#include "avx512.hpp"
#include "sets.hpp"

namespace {

struct Fma {
    static __m512i add(__m512i sum, __m512i column, __m512i weight) {
        return _mm512_castps_si512(
            _mm512_fmadd_ps(_mm512_castsi512_ps(column), _mm512_castsi512_ps(weight), _mm512_castsi512_ps(sum)));
    }
};

}  // namespace

namespace maskmill {

const Kernels avx512_f32{"avx512_f32",
                         Arithmetic::f32,
                         kRows,
                         kVector,
                         4,
                         4,
                         kColumnBytes,
                         nullptr,
                         copy_row<Arithmetic::f32>,
                         locate,
                         nullptr,
                         sample_f32,
                         multiply<Fma>,
                         finish<false>,
                         nullptr};

}  // namespace maskmill
