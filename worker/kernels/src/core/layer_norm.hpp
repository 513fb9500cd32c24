// Layer norm (Ba et al., arXiv 1607.06450) over the channels of each token, written as levels for an INT8 reader.
#pragma once

#include <cstddef>
#include <cstdint>

#include "aligned.hpp"
#include "attention.hpp"
#include "deform.hpp"

namespace maskmill {

// Channels are a multiple of this.
constexpr int kNormChannels = 16;

// Scale and shift of each channel, with those of the levels.
class PackedNorm {
public:
    // gamma, beta: [channels].
    PackedNorm(const float* gamma, const float* beta, int channels, float epsilon, const Levels& levels);

    int channels() const { return channels_; }
    float epsilon() const { return epsilon_; }
    const float* scale() const { return scale_.data(); }
    const float* shift() const { return shift_.data(); }

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

// The inner loop, for tokens from `begin` to `end`.
void normalise_avx512(const PackedNorm& packed, const uint8_t* tokens, Stored stored, int begin, int end,
                      uint8_t* levels);

}  // namespace maskmill
