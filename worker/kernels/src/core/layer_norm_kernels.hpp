// What the inner loop of layer norm sees: plain data, for the reason in attention_kernels.hpp.
#pragma once

#include "attention_kernels.hpp"

namespace maskmill {

// Channels are a multiple of this.
constexpr int kNormChannels = 16;

// Scale and shift of each channel, with those of the levels.
struct NormTables {
    int channels;
    float epsilon;
    const float* scale;
    const float* shift;
};

// Normalises tokens from `begin` to `end`.
void normalise_avx512(const NormTables& tables, const uint8_t* tokens, Stored stored, int begin, int end,
                      uint8_t* levels);

}  // namespace maskmill
