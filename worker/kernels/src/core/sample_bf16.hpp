// Sampling of columns in bf16, for CPUs that convert to it. Internal to the including file.
#pragma once

#include "avx512.hpp"

namespace {

// 32 channels of a bf16 map, split into even and odd ones.
struct Halves {
    __m512 even, odd;

    Halves() : even(_mm512_setzero_ps()), odd(_mm512_setzero_ps()) {}
    void add(const uint8_t* at, __m512 weight) {
        const __m512i both = _mm512_loadu_si512(at);
        even = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(both, 16)), weight, even);
        odd = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(-65536))), weight, odd);
    }
    static Halves of(const Corners& corners, int channel) {
        Halves sum;
#pragma GCC unroll 4
        for (int corner = 0; corner < 4; ++corner) sum.add(corners.at[corner] + 2 * channel, corners.weight[corner]);
        return sum;
    }
};

void sample_bf16(const PaddedMap& map, const Points* points, int taps, int pixels, int padded_channels, const int32_t*,
                 int, uint8_t* columns) {
    const size_t stride = static_cast<size_t>(taps) * padded_channels * 2;
    for (int tap = 0; tap < taps; ++tap) {
        uint8_t* to = columns + static_cast<size_t>(tap) * padded_channels * 2;
        for (int i = 0; i < pixels; ++i, to += stride) {
            const Corners corners(map, points[tap], i);
            for (int c = 0; c < padded_channels; c += 32) {
                const Halves sum = Halves::of(corners, c);
                const __m512bh both = _mm512_cvtne2ps_pbh(sum.odd, sum.even);  // order: see channel_at
                __builtin_memcpy(to + static_cast<size_t>(c) * 2, &both, sizeof both);
            }
        }
    }
}

}  // namespace
