#include <immintrin.h>

#include "layer_norm_kernels.hpp"

namespace maskmill {

namespace {

template <Stored kStored>
inline __m512 values_at(const uint8_t* token, int channel) {
    if constexpr (kStored == Stored::f32) {
        return _mm512_loadu_ps(reinterpret_cast<const float*>(token) + channel);
    }
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(token + 2 * channel));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

template <Stored kStored>
void normalise_token(const NormTables& tables, const uint8_t* token, uint8_t* levels) {
    const int channels = tables.channels;
    __m512 sum = _mm512_setzero_ps();
    for (int c = 0; c < channels; c += kNormChannels) sum = _mm512_add_ps(sum, values_at<kStored>(token, c));
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / static_cast<float>(channels));
    sum = _mm512_setzero_ps();
    for (int c = 0; c < channels; c += kNormChannels) {
        const __m512 distance = _mm512_sub_ps(values_at<kStored>(token, c), mean);
        sum = _mm512_fmadd_ps(distance, distance, sum);
    }
    const float variance = _mm512_reduce_add_ps(sum) / static_cast<float>(channels);
    const __m512 inverse = _mm512_set1_ps(1.0f / __builtin_sqrtf(variance + tables.epsilon));
    for (int c = 0; c < channels; c += kNormChannels) {
        const __m512 normal = _mm512_mul_ps(_mm512_sub_ps(values_at<kStored>(token, c), mean), inverse);
        const __m512 value =
            _mm512_fmadd_ps(normal, _mm512_loadu_ps(tables.scale + c), _mm512_loadu_ps(tables.shift + c));
        const __m512i level = _mm512_max_epi32(_mm512_cvtps_epi32(value), _mm512_setzero_si512());
        _mm_storeu_si128(reinterpret_cast<__m128i*>(levels + c), _mm512_cvtusepi32_epi8(level));
    }
}

}  // namespace

void normalise_avx512(const NormTables& tables, const uint8_t* tokens, Stored stored, int begin, int end,
                      uint8_t* levels) {
    const size_t value_bytes = stored == Stored::f32 ? 4 : 2;
    for (int i = begin; i < end; ++i) {
        const uint8_t* token = tokens + i * value_bytes * tables.channels;
        uint8_t* to = levels + static_cast<size_t>(i) * tables.channels;
        if (stored == Stored::f32) {
            normalise_token<Stored::f32>(tables, token, to);
        } else {
            normalise_token<Stored::bf16>(tables, token, to);
        }
    }
}

}  // namespace maskmill
