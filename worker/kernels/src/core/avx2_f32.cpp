// f32 for CPUs without AVX-512. 6 x 16 sums take 12 of 16 registers.
#include <immintrin.h>

#include <cmath>

#include "sets.hpp"

namespace {

using maskmill::Geometry;
using maskmill::PaddedMap;
using maskmill::Points;
using maskmill::Run;

constexpr int kVector = 8;
constexpr int kRows = 6;
constexpr int kColumnBytes = 448;  // the weights of 64 outputs stay in L1

void copy_row(const float* row, size_t plane, int channels, int padded_channels, int width, float, uint8_t* out) {
    float* to = reinterpret_cast<float*>(out);
    for (int x = 0; x < width; ++x) {
        float* pixel = to + static_cast<size_t>(x) * padded_channels;
        for (int c = 0; c < padded_channels; ++c) pixel[c] = c < channels ? row[c * plane + x] : 0.0f;
    }
}

float locate(const Geometry& geometry, const float* offsets, const float* mask, const Run& run, const PaddedMap& map,
             const Points* points) {
    const size_t plane = geometry.out_plane();
    const float height = static_cast<float>(geometry.height);
    const float width = static_cast<float>(geometry.width);
    const int row_pixels = map.row_pixels;
    const int count = run.pixels;
    float lowest = 0.0f;
    for (int tap = 0; tap < geometry.taps(); ++tap) {
        const float tap_y = static_cast<float>(tap / geometry.kernel_w * geometry.dilation_h);
        const float tap_x = static_cast<float>(tap % geometry.kernel_w * geometry.dilation_w);
        const float* dy = offsets + 2 * tap * plane + run.first;
        const float* dx = dy + plane;
        const float* modulator = mask == nullptr ? nullptr : mask + tap * plane + run.first;
        const float* row = run.row;
        const float* column = run.column;
        int32_t* __restrict base = points[tap].base;
        float* __restrict w00 = points[tap].weight[0];
        float* __restrict w01 = points[tap].weight[1];
        float* __restrict w10 = points[tap].weight[2];
        float* __restrict w11 = points[tap].weight[3];
        if (modulator != nullptr) {
            for (int i = 0; i < count; ++i) w00[i] = modulator[i];
        } else {
            for (int i = 0; i < count; ++i) w00[i] = 1.0f;
        }
        for (int i = 0; i < count; ++i) {
            float y = row[i] + tap_y + dy[i];
            float x = column[i] + tap_x + dx[i];
            // With these comparisons a NaN counts as outside.
            const bool inside = (y > -1.0f) & (y < height) & (x > -1.0f) & (x < width);
            y = inside ? y : -1.0f;
            x = inside ? x : -1.0f;
            const float m = inside ? w00[i] : 0.0f;
            const float y0 = std::floor(y);
            const float x0 = std::floor(x);
            const float fy = y - y0;
            const float fx = x - x0;
            base[i] = (static_cast<int32_t>(y0) + 1) * row_pixels + static_cast<int32_t>(x0) + 1;
            w11[i] = fy * fx * m;
            w10[i] = fy * (1.0f - fx) * m;
            w01[i] = (1.0f - fy) * fx * m;
            w00[i] = (1.0f - fy) * (1.0f - fx) * m;
            lowest = m < lowest ? m : lowest;
        }
        for (int i = count; i < run.padded; ++i) {
            base[i] = 0;
            w00[i] = w01[i] = w10[i] = w11[i] = 0.0f;
        }
    }
    return lowest;
}

void sample(const PaddedMap& map, const Points* points, int taps, int pixels, int padded_channels, const int32_t*, int,
            uint8_t* columns) {
    const size_t stride = static_cast<size_t>(taps) * padded_channels;
    for (int tap = 0; tap < taps; ++tap) {
        float* to = reinterpret_cast<float*>(columns) + static_cast<size_t>(tap) * padded_channels;
        for (int i = 0; i < pixels; ++i, to += stride) {
            const uint8_t* upper = map.pixels + static_cast<size_t>(points[tap].base[i]) * map.pixel_bytes;
            const uint8_t* lower = upper + map.row_bytes;
            const float* at[4] = {
                reinterpret_cast<const float*>(upper), reinterpret_cast<const float*>(upper + map.pixel_bytes),
                reinterpret_cast<const float*>(lower), reinterpret_cast<const float*>(lower + map.pixel_bytes)};
            for (int c = 0; c < padded_channels; c += kVector) {
                __m256 sum = _mm256_setzero_ps();
                for (int corner = 0; corner < 4; ++corner) {
                    sum = _mm256_fmadd_ps(_mm256_loadu_ps(at[corner] + c),
                                          _mm256_broadcast_ss(&points[tap].weight[corner][i]), sum);
                }
                _mm256_storeu_ps(to + c, sum);
            }
        }
    }
}

// Multiplies kRows pixels x 16 outputs over all lanes.
void product(const float* columns, int lanes, const float* weights, bool accumulate, float* sums, int padded_outputs) {
    __m256 sum[kRows][2];
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j) {
            sum[r][j] = accumulate ? _mm256_loadu_ps(sums + static_cast<size_t>(r) * padded_outputs + j * kVector)
                                   : _mm256_setzero_ps();
        }
    }
    for (int lane = 0; lane < lanes; ++lane) {
        const __m256 w0 = _mm256_load_ps(weights + static_cast<size_t>(lane) * maskmill::kOutputBlock);
        const __m256 w1 = _mm256_load_ps(weights + static_cast<size_t>(lane) * maskmill::kOutputBlock + kVector);
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) {
            const __m256 column = _mm256_broadcast_ss(columns + static_cast<size_t>(r) * lanes + lane);
            sum[r][0] = _mm256_fmadd_ps(column, w0, sum[r][0]);
            sum[r][1] = _mm256_fmadd_ps(column, w1, sum[r][1]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j) {
            _mm256_storeu_ps(sums + static_cast<size_t>(r) * padded_outputs + j * kVector, sum[r][j]);
        }
    }
}

void multiply(const uint8_t* columns, int lanes, int pixels, const uint8_t* weights, size_t block_stride,
              int padded_outputs, bool accumulate, void* sums) {
    for (int output = 0; output < padded_outputs; output += 2 * kVector) {
        const float* block = reinterpret_cast<const float*>(weights + output / maskmill::kOutputBlock * block_stride) +
                             output % maskmill::kOutputBlock;
        for (int pixel = 0; pixel < pixels; pixel += kRows) {
            product(reinterpret_cast<const float*>(columns) + static_cast<size_t>(pixel) * lanes, lanes, block,
                    accumulate, static_cast<float*>(sums) + static_cast<size_t>(pixel) * padded_outputs + output,
                    padded_outputs);
        }
    }
}

void finish(const void* sums, int padded_outputs, int pixels, int outputs, const float*, int, const float*,
            const int32_t*, const float* bias, bool relu, float* output, size_t plane) {
    constexpr int kPixels = 16;  // one cache line per plane at a time
    const float* from = static_cast<const float*>(sums);
    for (int i = 0; i < pixels; i += kPixels) {
        const int end = i + kPixels < pixels ? i + kPixels : pixels;
        for (int o = 0; o < outputs; ++o) {
            for (int p = i; p < end; ++p) {
                const float value = from[static_cast<size_t>(p) * padded_outputs + o] + bias[o];
                output[o * plane + p] = relu && value < 0.0f ? 0.0f : value;
            }
        }
    }
}

}  // namespace

namespace maskmill {

const Kernels avx2_f32{"avx2_f32", Arithmetic::f32, kRows,   16,     4,        4,      kColumnBytes, nullptr,
                       copy_row,   locate,          nullptr, sample, multiply, finish, nullptr};

}  // namespace maskmill
