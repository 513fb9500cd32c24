// f32 for CPUs without AVX-512. 6 x 16 sums take 12 of 16 registers.
#include <immintrin.h>

#include "loops.hpp"
#include "sets.hpp"

namespace {

constexpr int kVector = 8;
constexpr int kRows = 6;

void copy_row(const float* row, size_t plane, int channels, int padded_channels, int width, uint8_t* out, float* peak,
              float* lowest) {
    float* to = reinterpret_cast<float*>(out);
    float low = 0.0f;
    for (int x = 0; x < width; ++x) {
        float high = 0.0f;
        float* pixel = to + static_cast<size_t>(x) * padded_channels;
        for (int c = 0; c < padded_channels; ++c) {
            const float value = c < channels ? row[c * plane + x] : 0.0f;
            pixel[c] = value;
            high = std::fabs(value) > high ? std::fabs(value) : high;
            low = value < low ? value : low;
        }
        peak[x] = high;
    }
    *lowest = low;
}

void sample(const PaddedMap& map, const Points* points, int taps, int pixels, int padded_channels, float,
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

const Kernels avx2_f32{"avx2_f32", Arithmetic::f32, kRows,  16,       4,      4,      copy_row,
                       locate,     nullptr,         sample, multiply, finish, nullptr};

}  // namespace maskmill
