// Common parts of all AVX-512 sets: copying, sampling, the 6 x 64 product, finishing. Internal to the including file.
#pragma once

#include <immintrin.h>

#include "loops.hpp"

namespace {

constexpr int kVector = 16;
constexpr int kRows = 6;  // 6 x 4 sums, 4 vectors of weights and 1 of columns: 29 of 32 registers

inline __mmask16 first(int count) {
    return count >= kVector ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << count) - 1);
}

// Transposes 16 x 16 floats in registers.
inline void transpose(__m512 (&r)[16]) {
    __m512 t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        const __m512d a = _mm512_castps_pd(t[4 * i]);
        const __m512d b = _mm512_castps_pd(t[4 * i + 1]);
        const __m512d c = _mm512_castps_pd(t[4 * i + 2]);
        const __m512d d = _mm512_castps_pd(t[4 * i + 3]);
        r[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        r[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        r[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        r[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
        r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

// Rounds to the nearest bf16, ties to even.
inline __m256i to_bf16(__m512 value) {
    const __m512i bits = _mm512_castps_si512(value);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}

template <bool kHalf>
void copy_row(const float* row, size_t plane, int channels, int padded_channels, int width, uint8_t* out, float* peak,
              float* lowest) {
    constexpr int kBytes = kHalf ? 2 : 4;
    __m512 low = _mm512_setzero_ps();
    for (int x = 0; x < width; x += kVector) {
        const int pixels = width - x < kVector ? width - x : kVector;
        const __mmask16 mask = first(pixels);
        __m512 high = _mm512_setzero_ps();
        for (int c = 0; c < padded_channels; c += kVector) {
            __m512 block[16];
            for (int i = 0; i < kVector; ++i) {
                block[i] =
                    c + i < channels ? _mm512_maskz_loadu_ps(mask, row + (c + i) * plane + x) : _mm512_setzero_ps();
                high = _mm512_max_ps(high, _mm512_abs_ps(block[i]));
                low = _mm512_min_ps(low, block[i]);
            }
            transpose(block);
            for (int i = 0; i < pixels; ++i) {
                uint8_t* to = out + (static_cast<size_t>(x + i) * padded_channels + c) * kBytes;
                if constexpr (kHalf) {
                    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), to_bf16(block[i]));
                } else {
                    _mm512_storeu_ps(reinterpret_cast<float*>(to), block[i]);
                }
            }
        }
        _mm512_mask_storeu_ps(peak + x, mask, high);
    }
    *lowest = _mm512_reduce_min_ps(low);
}

// The four neighbours of one point and their weights.
struct Corners {
    const uint8_t* at[4];
    __m512 weight[4];

    Corners(const PaddedMap& map, const Points& points, int i) {
        at[0] = map.pixels + static_cast<size_t>(points.base[i]) * map.pixel_bytes;
        at[1] = at[0] + map.pixel_bytes;
        at[2] = at[0] + map.row_bytes;
        at[3] = at[2] + map.pixel_bytes;
        for (int corner = 0; corner < 4; ++corner) weight[corner] = _mm512_set1_ps(points.weight[corner][i]);
    }
};

// 32 channels of a bf16 map, split into even and odd ones.
struct Halves {
    __m512 even, odd;

    explicit Halves(__m512 start) : even(start), odd(start) {}
    void add(const uint8_t* at, __m512 weight) {
        const __m512i both = _mm512_loadu_si512(at);
        even = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(both, 16)), weight, even);
        odd = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(-65536))), weight, odd);
    }
    static Halves of(const Corners& corners, int channel, __m512 start) {
        Halves sum(start);
#pragma GCC unroll 4
        for (int corner = 0; corner < 4; ++corner) sum.add(corners.at[corner] + 2 * channel, corners.weight[corner]);
        return sum;
    }
};

[[maybe_unused]] void sample_u8(const PaddedMap& map, const Points* points, int taps, int pixels, int padded_channels,
                                float zero, uint8_t* columns) {
    const size_t stride = static_cast<size_t>(taps) * padded_channels;
    const __m512 start = _mm512_set1_ps(zero);
    for (int tap = 0; tap < taps; ++tap) {
        uint8_t* to = columns + static_cast<size_t>(tap) * padded_channels;
        for (int i = 0; i < pixels; ++i, to += stride) {
            const Corners corners(map, points[tap], i);
            for (int c = 0; c < padded_channels; c += 64) {
                const Halves a = Halves::of(corners, c, start);
                const Halves b = Halves::of(corners, c + 32, start);
                const __m512i low = _mm512_packus_epi32(_mm512_cvtps_epi32(a.even), _mm512_cvtps_epi32(a.odd));
                const __m512i high = _mm512_packus_epi32(_mm512_cvtps_epi32(b.even), _mm512_cvtps_epi32(b.odd));
                _mm512_storeu_si512(to + c, _mm512_packus_epi16(low, high));  // order: see channel_at
            }
        }
    }
}

[[maybe_unused]] void sample_f32(const PaddedMap& map, const Points* points, int taps, int pixels, int padded_channels,
                                 float, uint8_t* columns) {
    const size_t stride = static_cast<size_t>(taps) * padded_channels;
    for (int tap = 0; tap < taps; ++tap) {
        float* to = reinterpret_cast<float*>(columns) + static_cast<size_t>(tap) * padded_channels;
        for (int i = 0; i < pixels; ++i, to += stride) {
            const Corners corners(map, points[tap], i);
            for (int c = 0; c < padded_channels; c += kVector) {
                __m512 sum = _mm512_setzero_ps();
#pragma GCC unroll 4
                for (int corner = 0; corner < 4; ++corner) {
                    const float* from = reinterpret_cast<const float*>(corners.at[corner]) + c;
                    sum = _mm512_fmadd_ps(_mm512_loadu_ps(from), corners.weight[corner], sum);
                }
                _mm512_storeu_ps(to + c, sum);
            }
        }
    }
}

// Multiplies kRows pixels x 64 outputs over all lanes.
template <class Dot>
inline void product(const uint8_t* columns, size_t stride, const uint8_t* weights, int lanes, bool accumulate,
                    int32_t* sums, int padded_outputs) {
    __m512i sum[kRows][4];
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
            sum[r][j] = accumulate ? _mm512_loadu_si512(sums + static_cast<size_t>(r) * padded_outputs + j * kVector)
                                   : _mm512_setzero_si512();
        }
    }
    for (int lane = 0; lane < lanes; ++lane) {
        __m512i w[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) w[j] = _mm512_load_si512(weights + static_cast<size_t>(lane) * 256 + j * 64);
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) {
            int32_t bits;
            __builtin_memcpy(&bits, columns + r * stride + static_cast<size_t>(lane) * 4, sizeof bits);
            const __m512i column = _mm512_set1_epi32(bits);
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) sum[r][j] = Dot::add(sum[r][j], column, w[j]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
            _mm512_storeu_si512(sums + static_cast<size_t>(r) * padded_outputs + j * kVector, sum[r][j]);
        }
    }
}

template <class Dot>
void multiply(const uint8_t* columns, int lanes, int pixels, const uint8_t* weights, size_t block_stride,
              int padded_outputs, bool accumulate, void* sums) {
    const size_t stride = static_cast<size_t>(lanes) * 4;
    for (int output = 0; output < padded_outputs; output += maskmill::kOutputBlock, weights += block_stride) {
        for (int pixel = 0; pixel < pixels; pixel += kRows) {
            product<Dot>(columns + pixel * stride, stride, weights, lanes, accumulate,
                         static_cast<int32_t*>(sums) + static_cast<size_t>(pixel) * padded_outputs + output,
                         padded_outputs);
        }
    }
}

template <bool kInteger>
void finish(const void* sums, int padded_outputs, int pixels, int outputs, const float* row_scale, int zero,
            const float* out_scale, const int32_t* weight_sum, const float* bias, bool relu, float* output,
            size_t plane) {
    const __m512 floor = relu ? _mm512_setzero_ps() : _mm512_set1_ps(-__builtin_inff());
    for (int o = 0; o < outputs; o += kVector) {
        const __m512 shift = _mm512_loadu_ps(bias + o);
        __m512 scale = _mm512_set1_ps(1.0f);
        __m512i correction = _mm512_setzero_si512();
        if constexpr (kInteger) {
            scale = _mm512_loadu_ps(out_scale + o);
            correction = _mm512_mullo_epi32(_mm512_loadu_si512(weight_sum + o), _mm512_set1_epi32(zero));
        }
        for (int i = 0; i < pixels; i += kVector) {
            const char* from = static_cast<const char*>(sums) + (static_cast<size_t>(i) * padded_outputs + o) * 4;
            const int count = pixels - i < kVector ? pixels - i : kVector;
            __m512 block[16];
            for (int r = 0; r < kVector; ++r) {
                if (r >= count) {
                    block[r] = _mm512_setzero_ps();
                    continue;
                }
                const __m512i raw = _mm512_loadu_si512(from + static_cast<size_t>(r) * padded_outputs * 4);
                __m512 value;
                if constexpr (kInteger) {
                    const __m512 exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(raw, correction));
                    value = _mm512_mul_ps(exact, _mm512_mul_ps(scale, _mm512_set1_ps(row_scale[i + r])));
                } else {
                    value = _mm512_castsi512_ps(raw);
                }
                value = _mm512_add_ps(value, shift);
                block[r] = _mm512_max_ps(floor, value);  // this operand order keeps NaN
            }
            transpose(block);
            const int last = outputs - o < kVector ? outputs - o : kVector;
            for (int r = 0; r < last; ++r) {
                _mm512_mask_storeu_ps(output + (o + r) * plane + i, first(count), block[r]);
            }
        }
    }
}

[[maybe_unused]] void finish_levels(const void* sums, int padded_outputs, int pixels, int outputs,
                                    const float* row_scale, int zero, const float* out_scale, const int32_t* weight_sum,
                                    const float* bias, float step, uint8_t* output) {
    const __m512 steps = _mm512_set1_ps(1.0f / step);
    const __m512 most = _mm512_set1_ps(255.0f);
    for (int i = 0; i < pixels; ++i) {
        const int32_t* from = static_cast<const int32_t*>(sums) + static_cast<size_t>(i) * padded_outputs;
        const __m512 row = _mm512_set1_ps(row_scale[i]);
        for (int o = 0; o < outputs; o += kVector) {
            const __m512i shift = _mm512_mullo_epi32(_mm512_loadu_si512(weight_sum + o), _mm512_set1_epi32(zero));
            const __m512 exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_loadu_si512(from + o), shift));
            __m512 value = _mm512_mul_ps(exact, _mm512_mul_ps(_mm512_loadu_ps(out_scale + o), row));
            value = _mm512_mul_ps(_mm512_add_ps(value, _mm512_loadu_ps(bias + o)), steps);
            value = _mm512_min_ps(_mm512_max_ps(value, _mm512_setzero_ps()), most);  // a NaN becomes 0
            const __m512i levels = _mm512_cvtps_epi32(value);
            uint8_t* to = output + static_cast<size_t>(i) * outputs + o;
            if (outputs - o >= kVector) {
                _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtusepi32_epi8(levels));
            } else {
                _mm512_mask_cvtusepi32_storeu_epi8(to, first(outputs - o), levels);
            }
        }
    }
}

}  // namespace
