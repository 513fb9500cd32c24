#include "layer_norm.hpp"

#include <algorithm>

#include "sets.hpp"

namespace maskmill {

namespace {

constexpr int kTokens = 64;  // in one part of the work

struct NormCall {
    const PackedNorm& packed;
    const uint8_t* tokens;
    const Stored stored;
    const int count;
    uint8_t* levels;

    void part(int index) const {
        const int begin = index * kTokens;
        normalise_avx512(packed.tables(), tokens, stored, begin, std::min(begin + kTokens, count), levels);
    }
};

}  // namespace

PackedNorm::PackedNorm(const float* gamma, const float* beta, int channels, float epsilon, const Levels& levels)
    : channels_(channels), epsilon_(epsilon), scale_(channels), shift_(channels) {
    for (int c = 0; c < channels; ++c) {
        scale_.data()[c] = gamma[c] * levels.per_unit;
        shift_.data()[c] = beta[c] * levels.per_unit + levels.zero;
    }
}

bool normalises_here() { return runs_here(avx512_f32); }

void normalise(const PackedNorm& packed, const void* tokens, Stored stored, int count, uint8_t* levels,
               const Parallel& parallel) {
    NormCall call{packed, static_cast<const uint8_t*>(tokens), stored, count, levels};
    parallel.run((count + kTokens - 1) / kTokens,
                 [](void* self, int index) { static_cast<const NormCall*>(self)->part(index); }, &call);
}

}  // namespace maskmill
