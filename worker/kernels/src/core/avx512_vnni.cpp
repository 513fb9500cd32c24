#include "avx512.hpp"
#include "sets.hpp"

namespace {

struct Vnni {
    static __m512i add(__m512i sum, __m512i column, __m512i weight) { return _mm512_dpbusd_epi32(sum, column, weight); }
};

}  // namespace

namespace maskmill {

const Kernels avx512_vnni{"avx512_vnni",
                          Arithmetic::i8,
                          kRows,
                          64,
                          1,
                          2,
                          kColumnBytes,
                          measure_row,
                          copy_row<Arithmetic::i8>,
                          locate,
                          fit,
                          sample_u8,
                          multiply<Vnni>,
                          finish<true>,
                          finish_levels};

}  // namespace maskmill
