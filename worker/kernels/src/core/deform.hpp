// Modulated deformable convolution (Zhu et al., arXiv 1811.11168), followed by bias and ReLU.
//
//   planar f32 -> padded channels-last map ; per run of pixels: points -> columns -> product -> bias, ReLU -> planar
//   f32
//
// The semantics are those of DeformableConvolution-8 with bilinear_interpolation_pad=true, group 1 and deformable_group
// 1. A sampling point that is not finite counts as outside the map and yields zero.
#pragma once

#include <memory>
#include <vector>

#include "aligned.hpp"
#include "isa.hpp"
#include "problem.hpp"

namespace maskmill {

// Runs the parts of a call in parallel: on TBB inside OpenVINO, on plain threads in the tests.
class Parallel {
public:
    virtual ~Parallel() = default;
    virtual int threads() const = 0;
    // Calls body(context, i) for 0 <= i < count, in any order, and returns when all are done.
    virtual void run(int count, void (*body)(void* context, int index), void* context) const = 0;
};

// Weights in the layout of one instruction set. Packed once per layer, read by any number of threads.
class PackedWeights {
public:
    // weights: [outputs, channels, kernel_h, kernel_w] f32; bias: [outputs] or null.
    PackedWeights(const Kernels& kernels, const float* weights, const float* bias, int outputs, int channels, int taps);

    const Kernels& kernels() const { return *kernels_; }
    int padded_channels() const { return padded_channels_; }
    int padded_outputs() const { return padded_outputs_; }
    size_t block_stride() const { return block_stride_; }
    const uint8_t* data() const { return data_.data(); }
    const float* scale() const { return scale_.empty() ? nullptr : scale_.data(); }
    const int32_t* sum() const { return sum_.empty() ? nullptr : sum_.data(); }
    const float* bias() const { return bias_.data(); }

private:
    const Kernels* kernels_;
    int padded_channels_;
    int padded_outputs_;
    size_t block_stride_;
    Buffer<uint8_t> data_;
    std::vector<float> scale_;  // i8: one per output
    std::vector<int32_t> sum_;  // i8: sum of the weights of each output, for columns whose zero point is not 0
    std::vector<float> bias_;   // padded with zeros
};

// Computes one call. The process keeps scratch memory for reuse: one map per call in flight, one tile per thread.
void deform(const Geometry& geometry, const Maps& maps, const PackedWeights& weights, bool relu,
            const Parallel& parallel);

}  // namespace maskmill
