// One set of inner loops per instruction set, chosen at run time by CPUID.
#pragma once

#include <cstddef>
#include <cstdint>

#include "problem.hpp"

namespace maskmill {

// Where one tap of a run of output pixels samples: struct of arrays, one entry per pixel.
//
// `base` is the index in the padded map of the upper left of the four neighbours; the weights contain the modulator and
// are zero for a point outside the map (or not finite), whose `base` is that of a corner: reading is always allowed.
struct Points {
    int32_t* base;
    float* weight[4];  // (0,0), (0,1), (1,0), (1,1)
};

// A map in the form that sampling reads: channels last, a border of one zero pixel on each side.
struct PaddedMap {
    const uint8_t* pixels = nullptr;
    const float* peak = nullptr;  // i8: [height + 2, width + 2], largest |value| of the 2x2 pixels from each one on
    size_t pixel_bytes = 0;
    size_t row_bytes = 0;
    int row_pixels = 0;
};

// A run of output pixels of one picture: where it begins, and where its taps would be without offsets.
struct Run {
    int first;  // in the output plane
    int pixels;
    int padded;           // pixels rounded up to Kernels::pixel_multiple
    const float* row;     // [padded] row and
    const float* column;  // [padded] column in the input of tap (0, 0)
};

// Inner loops. Columns are [pixel][depth], weights [outputs / 64][lane][64 outputs][32 bits], where a lane is one f32,
// two bf16 or four bytes of depth; sums are [pixel][outputs], 32 bits each.
struct Kernels {
    const char* name;
    Arithmetic arithmetic;
    int pixel_multiple;     // runs of pixels are padded to this many
    int channel_multiple;   // channels are padded to this many
    int element_bytes;      // of a column element
    int map_element_bytes;  // of a map element

    // Writes one row of the padded map (without its border) and the largest and smallest value of each pixel.
    void (*copy_row)(const float* row, size_t plane, int channels, int padded_channels, int width, uint8_t* out,
                     float* peak, float* lowest);
    // Fills the points of all taps, [taps][padded]; returns the smallest modulator.
    float (*locate)(const Geometry& geometry, const float* offsets, const float* mask, const Run& run,
                    const PaddedMap& map, const Points* points);
    // i8 only: what one level of each pixel's columns is worth, from a bound on its samples; the points' weights are
    // divided by it. `levels` is the largest level.
    void (*fit)(const PaddedMap& map, const Points* points, int taps, int padded, float levels, float* row_scale);
    // Samples `taps` taps of `pixels` pixels: columns[pixel][tap][channel]. `zero` is what stands for 0 in i8.
    void (*sample)(const PaddedMap& map, const Points* points, int taps, int pixels, int padded_channels, float zero,
                   uint8_t* columns);
    // sums (+)= columns x weights over `lanes` of 32 bits of depth, for all output blocks. `block_stride` is bytes
    // from one block of 64 outputs to the next.
    void (*multiply)(const uint8_t* columns, int lanes, int pixels, const uint8_t* weights, size_t block_stride,
                     int padded_outputs, bool accumulate, void* sums);
    // output[o][pixel] = activate(sums * row_scale[pixel] * out_scale[o] + bias[o]); for f32 and bf16 the scales are
    // null.
    void (*finish)(const void* sums, int padded_outputs, int pixels, int outputs, const float* row_scale, int zero,
                   const float* out_scale, const int32_t* weight_sum, const float* bias, bool relu, float* output,
                   size_t plane);
};

// The best set for this CPU, or null. `name` narrows the choice for tests and benchmarks.
const Kernels* choose(Arithmetic arithmetic, const char* name = nullptr);

// Whether this CPU has what the set needs (AMX: also asks the kernel for its registers).
bool runs_here(const Kernels& kernels);

// All sets, the best first; ends with null.
const Kernels* const* all_kernels();

// The order in which the bytes of a column follow the channels: column position -> channel. Set by the packing.
int channel_at(Arithmetic arithmetic, int position);

constexpr int kOutputBlock = 64;

}  // namespace maskmill
