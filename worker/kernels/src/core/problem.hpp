// The inputs of a modulated deformable convolution as plain numbers, without OpenVINO or threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace maskmill {

// The arithmetic in which sampled columns are multiplied with weights.
enum class Arithmetic { f32, bf16, i8 };

// Sizes of one call. All maps are NCHW and dense; one group, one offset group.
struct Geometry {
    int batch = 1;
    int channels = 0;
    int height = 0;
    int width = 0;
    int outputs = 0;
    int out_height = 0;
    int out_width = 0;
    int kernel_h = 1;
    int kernel_w = 1;
    int stride_h = 1;
    int stride_w = 1;
    int pad_top = 0;
    int pad_left = 0;
    int dilation_h = 1;
    int dilation_w = 1;

    int taps() const { return kernel_h * kernel_w; }
    size_t in_plane() const { return static_cast<size_t>(height) * width; }
    size_t out_plane() const { return static_cast<size_t>(out_height) * out_width; }
};

// The maps of one call, f32 unless `levels` is set.
struct Maps {
    const float* data = nullptr;     // [batch, channels, height, width]
    const float* offsets = nullptr;  // [batch, 2 * taps, out_height, out_width]: dy, dx per tap, taps row-major
    const float* mask = nullptr;     // [batch, taps, out_height, out_width]; null: all ones
    float* output = nullptr;         // [batch, outputs, out_height, out_width]
    // i8 only, in place of `output`: [batch, out_height, out_width, outputs], value / step rounded to even, 0 to 255.
    uint8_t* levels = nullptr;
    float step = 1.0f;
};

}  // namespace maskmill
