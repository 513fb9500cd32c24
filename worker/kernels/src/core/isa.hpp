// One set of inner loops per instruction set, chosen at run time by CPUID.
#pragma once

#include <cstddef>
#include <cstdint>

#include "problem.hpp"

namespace maskmill {

// Sampling points of one tap for a run of output pixels: struct of arrays, one entry per pixel.
//
// `base` is the index in the padded map of the upper left of the four neighbours. The weights include the modulator.
// For a point that is outside the map or not finite they are zero and `base` is that of a corner, so that every read is
// valid. In i8, `Kernels::fit` replaces each weight by a fixed-point number, stored twice in the 32 bits.
struct Points {
    int32_t* base;
    float* weight[4];  // (0,0), (0,1), (1,0), (1,1)
};

// A map in the layout for sampling: channels last, with a border of one zero pixel on each side.
struct PaddedMap {
    const uint8_t* pixels = nullptr;
    const float* peak = nullptr;  // i8: [height + 2, width + 2], largest |value| of the 2x2 block from each pixel on
    float largest = 0.0f;         // i8: largest |value| of the map; `kMapLevels` in the map stand for it
    size_t pixel_bytes = 0;
    size_t row_bytes = 0;
    int row_pixels = 0;
};

// A run of output pixels of one image: its start, and the positions of its taps without offsets.
struct Run {
    int first;  // in the output plane
    int pixels;
    int padded;           // pixels rounded up to Kernels::pixel_multiple
    const float* row;     // [padded] input row of tap (0, 0)
    const float* column;  // [padded] input column of tap (0, 0)
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
    int column_bytes;       // of the columns per pixel that are sampled and multiplied at once, about

    // i8 only: finds the largest |value| of each pixel of one row, and the smallest value of the row.
    void (*measure_row)(const float* row, size_t plane, int channels, int width, float* peak, float* lowest);
    // Writes one row of the padded map, without its border. i8: as 16-bit integers, value * levels_per_value.
    void (*copy_row)(const float* row, size_t plane, int channels, int padded_channels, int width,
                     float levels_per_value, uint8_t* out);
    // Fills the points of all taps, [taps][padded]; returns the smallest modulator.
    float (*locate)(const Geometry& geometry, const float* offsets, const float* mask, const Run& run,
                    const PaddedMap& map, const Points* points);
    // i8 only: computes the value of one level in the columns of each pixel, from a bound on its samples. Turns the
    // weights of the points into fixed point, so that a sum of products with the map, times `gain`, is a level.
    void (*fit)(const PaddedMap& map, const Points* points, int taps, int padded, bool is_signed, float* row_scale,
                int32_t* gain);
    // Samples `taps` taps of `pixels` pixels: columns[pixel][tap][channel]. i8: `gain` is from `fit`, `zero` is the
    // zero point.
    void (*sample)(const PaddedMap& map, const Points* points, int taps, int pixels, int padded_channels,
                   const int32_t* gain, int zero, uint8_t* columns);
    // sums (+)= columns x weights over `lanes` of 32 bits of depth, for all output blocks. `block_stride` is bytes
    // from one block of 64 outputs to the next.
    void (*multiply)(const uint8_t* columns, int lanes, int pixels, const uint8_t* weights, size_t block_stride,
                     int padded_outputs, bool accumulate, void* sums);
    // output[o][pixel] = activate(sums * row_scale[pixel] * out_scale[o] + bias[o]); the scales are null for f32 and
    // bf16.
    void (*finish)(const void* sums, int padded_outputs, int pixels, int outputs, const float* row_scale, int zero,
                   const float* out_scale, const int32_t* weight_sum, const float* bias, bool relu, float* output,
                   size_t plane);
    // i8 only: output[pixel][o] = (sums * row_scale[pixel] * out_scale[o] + bias[o]) / step, rounded and limited to u8.
    void (*finish_levels)(const void* sums, int padded_outputs, int pixels, int outputs, const float* row_scale,
                          int zero, const float* out_scale, const int32_t* weight_sum, const float* bias, float step,
                          uint8_t* output);
};

// Returns the best set for this CPU, or null; for bf16 a set in f32 where that is faster. `name` restricts the choice,
// for tests and benchmarks.
const Kernels* choose(Arithmetic arithmetic, const char* name = nullptr);

// Returns whether this CPU can run the set. For AMX it also requests the tile registers from the Linux kernel.
bool runs_here(const Kernels& kernels);

// Returns all sets, best first, terminated by null.
const Kernels* const* all_kernels();

// Returns the channel at a position of a column. The pack instructions of the sampling loops determine this order.
int channel_at(Arithmetic arithmetic, int position);

constexpr int kOutputBlock = 64;
constexpr float kMapLevels = 32767.0f;  // i8: the largest number in a map

}  // namespace maskmill
