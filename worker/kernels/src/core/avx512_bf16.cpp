#include "sample_bf16.hpp"
#include "sets.hpp"

namespace {

struct Bf16 {
    static __m512i add(__m512i sum, __m512i column, __m512i weight) {
        return _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sum), reinterpret_cast<__m512bh>(column),
                                                    reinterpret_cast<__m512bh>(weight)));
    }
};

}  // namespace

namespace maskmill {

const Kernels avx512_bf16{"avx512_bf16",
                          Arithmetic::bf16,
                          kRows,
                          32,
                          2,
                          2,
                          kColumnBytes,
                          nullptr,
                          copy_row<Arithmetic::bf16>,
                          locate,
                          nullptr,
                          sample_bf16,
                          multiply<Bf16>,
                          finish<false>,
                          nullptr};

}  // namespace maskmill
