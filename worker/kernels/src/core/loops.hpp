// Loops that the compiler vectorises for the instruction set of the including file. Everything is internal to that
// file: a function shared between files could be compiled for the wrong CPU.
#pragma once

#include <cmath>

#include "isa.hpp"

namespace {

using maskmill::Geometry;
using maskmill::PaddedMap;
using maskmill::Points;
using maskmill::Run;

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

[[maybe_unused]] void fit(const PaddedMap& map, const Points* points, int taps, int padded, float levels,
                          float* __restrict row_scale) {
    for (int i = 0; i < padded; ++i) row_scale[i] = 0.0f;
    const float* peak = map.peak;
    for (int tap = 0; tap < taps; ++tap) {
        const int32_t* base = points[tap].base;
        const float* w00 = points[tap].weight[0];
        const float* w01 = points[tap].weight[1];
        const float* w10 = points[tap].weight[2];
        const float* w11 = points[tap].weight[3];
        for (int i = 0; i < padded; ++i) {
            const float bound = peak[base[i]] * std::fabs(w00[i] + w01[i] + w10[i] + w11[i]);
            row_scale[i] = bound > row_scale[i] ? bound : row_scale[i];
        }
    }
    for (int tap = 0; tap < taps; ++tap) {
        for (int corner = 0; corner < 4; ++corner) {
            float* __restrict weight = points[tap].weight[corner];
            for (int i = 0; i < padded; ++i) {
                weight[i] *= row_scale[i] > 0.0f ? levels / row_scale[i] : 0.0f;
            }
        }
    }
    for (int i = 0; i < padded; ++i) row_scale[i] /= levels;
}

}  // namespace
