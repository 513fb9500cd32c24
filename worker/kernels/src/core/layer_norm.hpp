// Layer norm (Ba et al., arXiv 1607.06450) over the channels of each token, written as levels for an INT8 reader.
#pragma once

#include <cstddef>
#include <cstdint>

#include "aligned.hpp"
#include "deform.hpp"
#include "layer_norm_kernels.hpp"

namespace maskmill {

// Scale and shift of each channel, with those of the levels.
class PackedNorm {
public:
    // gamma, beta: [channels].
    PackedNorm(const float* gamma, const float* beta, int channels, float epsilon, const Levels& levels);

    NormTables tables() const { return {channels_, epsilon_, scale_.data(), shift_.data()}; }

private:
    int channels_;
    float epsilon_;
    Buffer<float> scale_, shift_;
};

// Returns whether this CPU has inner loops for layer norm: AVX-512.
bool normalises_here();

// Computes levels [tokens, channels] of tokens [tokens, channels] that are stored like this. Their variance is that of
// all channels, with `epsilon` added to it. A token with a value that is not finite has undefined levels.
void normalise(const PackedNorm& packed, const void* tokens, Stored stored, int count, uint8_t* levels,
               const Parallel& parallel);

}  // namespace maskmill
