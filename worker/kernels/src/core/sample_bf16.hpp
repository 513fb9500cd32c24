// Sampling of columns in bf16, for CPUs that convert to it. Internal to the including file.
#pragma once

#include "avx512.hpp"

namespace {

void sample_bf16(const PaddedMap& map, const Points* points, int taps, int pixels, int padded_channels, float,
                 uint8_t* columns) {
    const size_t stride = static_cast<size_t>(taps) * padded_channels * 2;
    for (int tap = 0; tap < taps; ++tap) {
        uint8_t* to = columns + static_cast<size_t>(tap) * padded_channels * 2;
        for (int i = 0; i < pixels; ++i, to += stride) {
            const Corners corners(map, points[tap], i);
            for (int c = 0; c < padded_channels; c += 32) {
                const Halves sum = Halves::of(corners, c, _mm512_setzero_ps());
                const __m512bh both = _mm512_cvtne2ps_pbh(sum.odd, sum.even);  // order: see channel_at
                __builtin_memcpy(to + static_cast<size_t>(c) * 2, &both, sizeof both);
            }
        }
    }
}

}  // namespace
