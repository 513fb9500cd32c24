// Common parts of all AVX-512 sets: copying, sampling, the 6 x 64 product, finishing. Internal to the including file.
#pragma once

#include <immintrin.h>

#include "isa.hpp"
#include "transpose.hpp"

namespace {

using maskmill::Arithmetic;
using maskmill::Geometry;
using maskmill::PaddedMap;
using maskmill::Points;
using maskmill::Run;

constexpr int kVector = 16;
// All 49 taps of 64 channels in i8. Sums stay in registers over that depth, which is worth more than weights that stay
// in L1; the columns of a run, 300 kB, stay in L2.
constexpr int kColumnBytes = 3136;
constexpr int kNear = 12;  // pixels sampled for all taps in turn: the part of the map that they need stays in L1
constexpr int kRows = 6;   // 6 x 4 sums, 4 vectors of weights and 1 of columns: 29 of 32 registers

inline __mmask16 first(int count) {
    return count >= kVector ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << count) - 1);
}

// Rounds to the nearest bf16, ties to even.
inline __m256i to_bf16(__m512 value) {
    const __m512i bits = _mm512_castps_si512(value);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}

template <Arithmetic kArithmetic>
void copy_row(const float* row, size_t plane, int channels, int padded_channels, int width, float levels_per_value,
              uint8_t* out) {
    constexpr int kBytes = kArithmetic == Arithmetic::f32 ? 4 : 2;
    [[maybe_unused]] const __m512 factor = _mm512_set1_ps(levels_per_value);
    for (int x = 0; x < width; x += kVector) {
        const int pixels = width - x < kVector ? width - x : kVector;
        const __mmask16 mask = first(pixels);
        for (int c = 0; c < padded_channels; c += kVector) {
            __m512 block[16];
            for (int i = 0; i < kVector; ++i) {
                block[i] =
                    c + i < channels ? _mm512_maskz_loadu_ps(mask, row + (c + i) * plane + x) : _mm512_setzero_ps();
            }
            transpose(block);
            for (int i = 0; i < pixels; ++i) {
                uint8_t* to = out + (static_cast<size_t>(x + i) * padded_channels + c) * kBytes;
                if constexpr (kArithmetic == Arithmetic::f32) {
                    _mm512_storeu_ps(reinterpret_cast<float*>(to), block[i]);
                } else if constexpr (kArithmetic == Arithmetic::bf16) {
                    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), to_bf16(block[i]));
                } else {
                    const __m512i levels = _mm512_cvtps_epi32(_mm512_mul_ps(block[i], factor));
                    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtsepi32_epi16(levels));
                }
            }
        }
    }
}

[[maybe_unused]] void measure_row(const float* row, size_t plane, int channels, int width, float* peak, float* lowest) {
    constexpr int kAtOnce = 4;  // vectors of pixels
    __m512 low = _mm512_setzero_ps();
    for (int x = 0; x < width; x += kAtOnce * kVector) {
        __mmask16 mask[kAtOnce];
        __m512 high[kAtOnce];
        for (int j = 0; j < kAtOnce; ++j) {
            const int left = width - x - j * kVector;
            mask[j] = left > 0 ? first(left) : static_cast<__mmask16>(0);
            high[j] = _mm512_setzero_ps();
        }
        for (int c = 0; c < channels; ++c) {
            const float* from = row + c * plane + x;
#pragma GCC unroll 4
            for (int j = 0; j < kAtOnce; ++j) {
                const __m512 value = _mm512_maskz_loadu_ps(mask[j], from + j * kVector);
                high[j] = _mm512_max_ps(high[j], _mm512_abs_ps(value));
                low = _mm512_min_ps(low, value);
            }
        }
        for (int j = 0; j < kAtOnce; ++j) _mm512_mask_storeu_ps(peak + x + j * kVector, mask[j], high[j]);
    }
    *lowest = _mm512_reduce_min_ps(low);
}

float locate(const Geometry& geometry, const float* offsets, const float* mask, const Run& run, const PaddedMap& map,
             const Points* points) {
    const size_t plane = geometry.out_plane();
    const __m512 outside = _mm512_set1_ps(-1.0f), one = _mm512_set1_ps(1.0f);
    const __m512 height = _mm512_set1_ps(static_cast<float>(geometry.height));
    const __m512 width = _mm512_set1_ps(static_cast<float>(geometry.width));
    const __m512i row_pixels = _mm512_set1_epi32(map.row_pixels), next = _mm512_set1_epi32(1);
    __m512 lowest = _mm512_setzero_ps();
    for (int tap = 0; tap < geometry.taps(); ++tap) {
        const __m512 tap_y = _mm512_set1_ps(static_cast<float>(tap / geometry.kernel_w * geometry.dilation_h));
        const __m512 tap_x = _mm512_set1_ps(static_cast<float>(tap % geometry.kernel_w * geometry.dilation_w));
        const float* dy = offsets + 2 * tap * plane + run.first;
        const float* dx = dy + plane;
        const float* modulator = mask == nullptr ? nullptr : mask + tap * plane + run.first;
        const Points& to = points[tap];
        for (int i = 0; i < run.padded; i += kVector) {
            const __mmask16 within = run.pixels > i ? first(run.pixels - i) : static_cast<__mmask16>(0);
            const __mmask16 all = first(run.padded - i);
            const __m512 row = _mm512_maskz_loadu_ps(within, run.row + i);
            const __m512 column = _mm512_maskz_loadu_ps(within, run.column + i);
            __m512 y = _mm512_add_ps(_mm512_add_ps(row, tap_y), _mm512_maskz_loadu_ps(within, dy + i));
            __m512 x = _mm512_add_ps(_mm512_add_ps(column, tap_x), _mm512_maskz_loadu_ps(within, dx + i));
            // With these comparisons a NaN counts as outside.
            __mmask16 inside = _mm512_mask_cmp_ps_mask(within, y, outside, _CMP_GT_OQ);
            inside = _mm512_mask_cmp_ps_mask(inside, y, height, _CMP_LT_OQ);
            inside = _mm512_mask_cmp_ps_mask(inside, x, outside, _CMP_GT_OQ);
            inside = _mm512_mask_cmp_ps_mask(inside, x, width, _CMP_LT_OQ);
            y = _mm512_mask_mov_ps(outside, inside, y);
            x = _mm512_mask_mov_ps(outside, inside, x);
            const __m512 m =
                modulator == nullptr ? _mm512_maskz_mov_ps(inside, one) : _mm512_maskz_loadu_ps(inside, modulator + i);
            lowest = _mm512_min_ps(m, lowest);  // this operand order ignores NaN
            const __m512 y0 = _mm512_roundscale_ps(y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
            const __m512 x0 = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
            const __m512i upper = _mm512_mullo_epi32(_mm512_add_epi32(_mm512_cvttps_epi32(y0), next), row_pixels);
            const __m512i left = _mm512_add_epi32(_mm512_cvttps_epi32(x0), next);
            _mm512_mask_storeu_epi32(to.base + i, all, _mm512_add_epi32(upper, left));
            const __m512 fy = _mm512_sub_ps(y, y0), fx = _mm512_sub_ps(x, x0);
            const __m512 below = _mm512_mul_ps(fy, m), above = _mm512_mul_ps(_mm512_sub_ps(one, fy), m);
            const __m512 rest = _mm512_sub_ps(one, fx);
            _mm512_mask_storeu_ps(to.weight[0] + i, all, _mm512_mul_ps(above, rest));
            _mm512_mask_storeu_ps(to.weight[1] + i, all, _mm512_mul_ps(above, fx));
            _mm512_mask_storeu_ps(to.weight[2] + i, all, _mm512_mul_ps(below, rest));
            _mm512_mask_storeu_ps(to.weight[3] + i, all, _mm512_mul_ps(below, fx));
        }
    }
    return _mm512_reduce_min_ps(lowest);
}

// A level of the columns is the sum over four corners of map * weight / 2^15, times gain / 2^15. All fit 16 bits: a
// weight is at most kUnsignedFull or kSignedFull, and so is the sum, because a sample is at most the largest level.
constexpr float kOne = 32768.0f;
constexpr float kUnsignedLevels = 255.0f;
constexpr float kUnsignedFull = 255.0f * 128;
constexpr float kSignedLevels = 127.0f;
constexpr float kSignedFull = 127.0f * 256;
constexpr float kLargestGain = 32767.0f;

// Returns a 16-bit integer in both halves of 32 bits, so that one broadcast fills a vector with it.
inline __m512i twice(__m512 value) {
    const __m512i level = _mm512_cvtps_epi32(value);
    return _mm512_or_si512(_mm512_slli_epi32(level, 16), _mm512_and_si512(level, _mm512_set1_epi32(0xffff)));
}

[[maybe_unused]] void fit(const PaddedMap& map, const Points* points, int taps, int padded, bool is_signed,
                          float* row_scale, int32_t* gain) {
    const float levels = is_signed ? kSignedLevels : kUnsignedLevels;
    const float least_gain = kOne * levels / (is_signed ? kSignedFull : kUnsignedFull);
    const __m512 zero = _mm512_setzero_ps();
    for (int i = 0; i < padded; i += kVector) {
        const __mmask16 mask = first(padded - i);
        __m512 bound = zero, modulator = zero;
        for (int tap = 0; tap < taps; ++tap) {
            __m512 sum = zero;
            for (int corner = 0; corner < 4; ++corner) {
                sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, points[tap].weight[corner] + i));
            }
            sum = _mm512_abs_ps(sum);
            const __m512i base = _mm512_maskz_loadu_epi32(mask, points[tap].base + i);
            const __m512 peak = _mm512_i32gather_ps(base, map.peak, 4);
            modulator = _mm512_max_ps(modulator, sum);
            bound = _mm512_max_ps(bound, _mm512_mul_ps(sum, peak));
        }
        // In a dark region the weights would exceed their range: the gain takes what they cannot. At its limit, the
        // largest level is not used.
        const __m512 brightest = _mm512_mul_ps(modulator, _mm512_set1_ps(map.largest * least_gain));
        bound = _mm512_max_ps(bound, _mm512_div_ps(brightest, _mm512_set1_ps(kLargestGain)));
        const __mmask16 some = _mm512_cmp_ps_mask(bound, zero, _CMP_GT_OQ);
        const __m512 inverse = _mm512_maskz_div_ps(some, _mm512_set1_ps(1.0f), bound);
        __m512 gains = _mm512_mul_ps(brightest, inverse);
        gains = _mm512_roundscale_ps(gains, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
        gains = _mm512_min_ps(_mm512_max_ps(gains, _mm512_set1_ps(least_gain)), _mm512_set1_ps(kLargestGain));
        _mm512_mask_storeu_epi32(gain + i, mask, twice(gains));
        _mm512_mask_storeu_ps(row_scale + i, mask, _mm512_div_ps(bound, _mm512_set1_ps(levels)));
        const __m512 per_level = _mm512_set1_ps(map.largest * levels * kOne * (kOne / maskmill::kMapLevels));
        const __m512 factor = _mm512_div_ps(_mm512_mul_ps(per_level, inverse), gains);
        for (int tap = 0; tap < taps; ++tap) {
            for (int corner = 0; corner < 4; ++corner) {
                float* weight = points[tap].weight[corner] + i;
                const __m512 fixed = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, weight), factor);
                _mm512_mask_storeu_epi32(weight, mask, twice(fixed));
            }
        }
    }
}

// The four neighbours of one point and their weights.
struct Corners {
    const uint8_t* at[4];
    __m512 weight[4];  // i8: 16-bit integers

    Corners(const PaddedMap& map, const Points& points, int i) {
        at[0] = map.pixels + static_cast<size_t>(points.base[i]) * map.pixel_bytes;
        at[1] = at[0] + map.pixel_bytes;
        at[2] = at[0] + map.row_bytes;
        at[3] = at[2] + map.pixel_bytes;
        for (int corner = 0; corner < 4; ++corner) weight[corner] = _mm512_set1_ps(points.weight[corner][i]);
    }

    // Returns levels of 32 channels in 16 bits.
    __m512i levels(int channel, __m512i gain, __m512i zero) const {
        __m512i part[4];
#pragma GCC unroll 4
        for (int corner = 0; corner < 4; ++corner) {
            const __m512i map = _mm512_loadu_si512(at[corner] + 2 * channel);
            part[corner] = _mm512_mulhrs_epi16(map, _mm512_castps_si512(weight[corner]));
        }
        const __m512i sum = _mm512_add_epi16(_mm512_add_epi16(part[0], part[1]), _mm512_add_epi16(part[2], part[3]));
        return _mm512_add_epi16(_mm512_mulhrs_epi16(sum, gain), zero);
    }
};

[[maybe_unused]] void sample_u8(const PaddedMap& map, const Points* points, int taps, int pixels, int padded_channels,
                                const int32_t* gain, int zero, uint8_t* columns) {
    const size_t stride = static_cast<size_t>(taps) * padded_channels;
    const __m512i shift = _mm512_set1_epi16(static_cast<short>(zero));
    const PaddedMap from = map;  // a copy: what is written to the columns cannot alias it
    for (int begin = 0; begin < pixels; begin += kNear) {
        const int end = begin + kNear < pixels ? begin + kNear : pixels;
        for (int tap = 0; tap < taps; ++tap) {
            uint8_t* to = columns + begin * stride + static_cast<size_t>(tap) * padded_channels;
            const Points here = points[tap];
            for (int i = begin; i < end; ++i, to += stride) {
                const Corners corners(from, here, i);
                const __m512i gains = _mm512_set1_epi32(gain[i]);
                for (int c = 0; c < padded_channels; c += 64) {
                    const __m512i low = corners.levels(c, gains, shift);
                    const __m512i high = corners.levels(c + 32, gains, shift);
                    _mm512_storeu_si512(to + c, _mm512_packus_epi16(low, high));  // order: see channel_at
                }
            }
        }
    }
}

[[maybe_unused]] void sample_f32(const PaddedMap& map, const Points* points, int taps, int pixels, int padded_channels,
                                 const int32_t*, int, uint8_t* columns) {
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
