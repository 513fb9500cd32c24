// The operation by its definition in double precision, and the error bound of each arithmetic.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "../core/problem.hpp"

namespace maskmill {

struct Expected {
    std::vector<double> value;
    std::vector<double> f32, bf16, i8;  // bounds on the error of each value

    const std::vector<double>& bound(Arithmetic arithmetic) const {
        return arithmetic == Arithmetic::f32 ? f32 : arithmetic == Arithmetic::bf16 ? bf16 : i8;
    }
};

// A sample, the same sample of absolute values, to which rounding errors of the map are relative, and the largest
// absolute value among its four pixels.
struct Sample {
    double value = 0, magnitude = 0, peak = 0;
};

inline Sample sampled(const float* plane, int height, int width, double y, double x) {
    Sample sum;
    if (!(y > -1 && y < height && x > -1 && x < width)) return sum;
    const int y0 = static_cast<int>(std::floor(y)), x0 = static_cast<int>(std::floor(x));
    for (int dy = 0; dy < 2; ++dy) {
        for (int dx = 0; dx < 2; ++dx) {
            const int row = y0 + dy, column = x0 + dx;
            if (row < 0 || row >= height || column < 0 || column >= width) continue;
            const double weight = (dy ? y - y0 : 1 - (y - y0)) * (dx ? x - x0 : 1 - (x - x0));
            const double pixel = plane[static_cast<size_t>(row) * width + column];
            sum.value += weight * pixel;
            sum.magnitude += weight * std::fabs(pixel);
            sum.peak = std::max(sum.peak, std::fabs(pixel));
        }
    }
    return sum;
}

// The bounds are worst cases. f32: rounding of sums. bf16: half a unit (2^-8) for each of map, column and weight, with
// a margin for second order. i8: half a level of the column (from the largest pixel among the samples, but at least
// 1/128 of the largest of the map), half a level of the weight, and fixed point with 15 bits for map, weights and their
// sum.
inline Expected expected(const Geometry& g, const Maps& maps, const float* weights, const float* bias, bool relu) {
    const size_t plane = g.out_plane();
    const size_t taps = static_cast<size_t>(g.taps()), depth = g.channels * taps;
    Expected out;
    for (auto* values : {&out.value, &out.f32, &out.bf16, &out.i8}) values->resize(g.batch * g.outputs * plane);
    std::vector<Sample> columns(depth);
    double peak = 0;
    for (size_t i = 0; i < g.batch * g.channels * g.in_plane(); ++i)
        peak = std::max(peak, std::fabs(double(maps.data[i])));
    for (int n = 0; n < g.batch; ++n) {
        for (size_t p = 0; p < plane; ++p) {
            double largest = 0, local = 0, column_sum = 0;
            for (size_t tap = 0; tap < taps; ++tap) {
                const float* offset = maps.offsets + (n * 2 * taps + 2 * tap) * plane + p;
                const float m = maps.mask == nullptr ? 1.0f : maps.mask[(n * taps + tap) * plane + p];
                largest = std::max(largest, std::fabs(m) * peak);
                // Coordinates in single precision, as in the operation: the sum may round to a whole number.
                const int row = static_cast<int>(p) / g.out_width * g.stride_h - g.pad_top;
                const int column = static_cast<int>(p) % g.out_width * g.stride_w - g.pad_left;
                const float y = static_cast<float>(row) +
                                static_cast<float>(static_cast<int>(tap) / g.kernel_w * g.dilation_h) + offset[0];
                const float x = static_cast<float>(column) +
                                static_cast<float>(static_cast<int>(tap) % g.kernel_w * g.dilation_w) + offset[plane];
                double near = 0;
                for (int c = 0; c < g.channels; ++c) {
                    const float* map = maps.data + (static_cast<size_t>(n) * g.channels + c) * g.in_plane();
                    const Sample one = sampled(map, g.height, g.width, y, x);
                    columns[c * taps + tap] = {m * one.value, std::fabs(m) * one.magnitude};
                    column_sum += std::fabs(m) * one.magnitude;
                    near = std::max(near, one.peak);
                }
                local = std::max(local, std::fabs(m) * near);
            }
            for (int o = 0; o < g.outputs; ++o) {
                const float* own = weights + o * depth;
                double sum = bias == nullptr ? 0 : bias[o], magnitude = std::fabs(sum), weight_sum = 0, heaviest = 0;
                for (size_t i = 0; i < depth; ++i) {
                    sum += columns[i].value * own[i];
                    magnitude += columns[i].magnitude * std::fabs(double(own[i]));
                    weight_sum += std::fabs(double(own[i]));
                    heaviest = std::max(heaviest, std::fabs(double(own[i])));
                }
                const size_t at = (static_cast<size_t>(n) * g.outputs + o) * plane + p;
                out.value[at] = relu && sum < 0 ? 0 : sum;
                // Bilinear weights near 0 or 1 carry the rounding of the coordinate, hence `largest`.
                out.f32[at] = 1e-5 * (magnitude + 1e-2 * weight_sum * largest) + 1e-30;
                out.bf16[at] = 3.05 * magnitude / 256 + out.f32[at];
                const double level = std::max(local, largest / 128) / 127;
                out.i8[at] = 1.02 * (weight_sum * level / 2 + column_sum * heaviest / 127 / 2) +
                             5 * weight_sum * largest / 32767 + out.f32[at];
            }
        }
    }
    return out;
}

}  // namespace maskmill
