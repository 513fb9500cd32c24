// Attention of one head of one window, for AVX-512 with VNNI. Internal to the including file, which names how
// probabilities are multiplied with values.
#pragma once

#include <immintrin.h>

#include "attention_kernels.hpp"
#include "transpose.hpp"

namespace {

using maskmill::HeadMemory;
using maskmill::kHeadWidth;
using maskmill::kKeysPacked;
using maskmill::kQueries;
using maskmill::kScores;
using maskmill::Levels;
using maskmill::Stored;
using maskmill::WindowHead;

constexpr int kScoreQueries = 5;  // scored at once: 5 x 4 sums, 4 vectors of keys
constexpr int kKeyVectors = 4;
constexpr int kQuads = kHeadWidth / 4;  // products of 4 levels that VNNI adds up
constexpr int kKeyBytes = kQuads * 64;  // 16 keys, [quad][key][4 levels]

// A half of the channels of a head in each vector, as f32. Which half holds a channel depends on how it is stored.
struct Channels {
    __m512 a, b;
};

inline Channels channels(const uint8_t* at, Stored stored) {
    if (stored == Stored::f32) {
        const float* values = reinterpret_cast<const float*>(at);
        return {_mm512_loadu_ps(values), _mm512_loadu_ps(values + 16)};
    }
    const __m512i both = _mm512_loadu_si512(at);  // even channels, odd channels
    return {_mm512_castsi512_ps(_mm512_slli_epi32(both, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(-65536)))};
}

// Limits 32 integers to 0..255. In each 128-bit part of the result are 4 of `a` and 4 of `b`.
inline __m256i limited(__m512i a, __m512i b) {
    const __m512i words = _mm512_packs_epi32(a, b);
    return _mm512_cvtusepi16_epi8(_mm512_max_epi16(words, _mm512_setzero_si512()));
}

// Queries and keys get the same order of channels, so that their product does not depend on it. A NaN becomes 0.
inline __m256i levels_of(const Channels& values, __m512 per_unit, __m512 zero) {
    return limited(_mm512_cvtps_epi32(_mm512_fmadd_ps(values.a, per_unit, zero)),
                   _mm512_cvtps_epi32(_mm512_fmadd_ps(values.b, per_unit, zero)));
}

// Writes the levels of one part (queries or keys) of all positions, [position][32].
inline void write_levels(const WindowHead& head, Stored stored, size_t offset, const Levels& levels, int rows,
                         uint8_t* to) {
    const __m512 per_unit = _mm512_set1_ps(levels.per_unit), zero = _mm512_set1_ps(levels.zero);
    for (int i = 0; i < rows; ++i) {
        __m256i found = _mm256_setzero_si256();
        if (i < head.area) found = levels_of(channels(head.rows[i] + offset, stored), per_unit, zero);
        _mm256_store_si256(reinterpret_cast<__m256i*>(to + i * kHeadWidth), found);
    }
}

// Turns 32 keys [key][32 levels] into two blocks [quad][key][4 levels], signed: less 128.
inline void pack_keys(const uint8_t* from, int8_t* to) {
    __m512 block[16];
    const __m512i sign = _mm512_set1_epi8(-128);
    for (int i = 0; i < 16; ++i) {
        const __m256i low = _mm256_load_si256(reinterpret_cast<const __m256i*>(from + i * kHeadWidth));
        const __m256i high = _mm256_load_si256(reinterpret_cast<const __m256i*>(from + (i + 16) * kHeadWidth));
        const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
        block[i] = _mm512_castsi512_ps(_mm512_xor_si512(both, sign));
    }
    transpose(block);
    for (int i = 0; i < 16; ++i) _mm512_store_si512(to + i * 64, _mm512_castps_si512(block[i]));
}

// Multiplies queries with 16 * V keys: scores[query][key], from `start` on.
template <int V>
inline void score(const uint8_t* queries, const int8_t* keys, const int32_t* start, int32_t* scores, int stride) {
    __m512i sum[kScoreQueries][V];
#pragma GCC unroll 5
    for (int r = 0; r < kScoreQueries; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[r][v] = _mm512_load_si512(start + v * kScores);
    }
#pragma GCC unroll 8
    for (int quad = 0; quad < kQuads; ++quad) {
        __m512i key[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) key[v] = _mm512_load_si512(keys + v * kKeyBytes + quad * 64);
#pragma GCC unroll 5
        for (int r = 0; r < kScoreQueries; ++r) {
            int32_t bits;
            __builtin_memcpy(&bits, queries + r * kHeadWidth + quad * 4, sizeof bits);
            const __m512i query = _mm512_set1_epi32(bits);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sum[r][v] = _mm512_dpbusd_epi32(sum[r][v], query, key[v]);
        }
    }
#pragma GCC unroll 5
    for (int r = 0; r < kScoreQueries; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) _mm512_store_si512(scores + r * stride + v * kScores, sum[r][v]);
    }
}

// What a zero of the queries adds to the score of each key, negative. The zero of the keys adds the same to all scores
// of a query, which the softmax does not change by.
inline void write_start(const int8_t* keys, int vectors, float zero, int32_t* start) {
    const __m512i zeros = _mm512_set1_epi8(static_cast<char>(static_cast<int>(zero)));
    for (int v = 0; v < vectors; ++v) {
        __m512i sum = _mm512_setzero_si512();
        for (int quad = 0; quad < kQuads; ++quad) {
            sum = _mm512_dpbusd_epi32(sum, zeros, _mm512_load_si512(keys + v * kKeyBytes + quad * 64));
        }
        _mm512_store_si512(start + v * kScores, _mm512_sub_epi32(_mm512_setzero_si512(), sum));
    }
}

inline void score_all(const uint8_t* queries, const int8_t* keys, int vectors, const int32_t* start, int32_t* scores) {
    const int stride = vectors * kScores;
    for (int v = 0; v < vectors; v += kKeyVectors) {
        const int8_t* key = keys + v * kKeyBytes;
        for (int r = 0; r < kQueries; r += kScoreQueries) {
            const uint8_t* query = queries + r * kHeadWidth;
            int32_t* to = scores + r * stride + v * kScores;
            switch (vectors - v) {
                case 1:
                    score<1>(query, key, start + v * kScores, to, stride);
                    break;
                case 2:
                    score<2>(query, key, start + v * kScores, to, stride);
                    break;
                case 3:
                    score<3>(query, key, start + v * kScores, to, stride);
                    break;
                default:
                    score<4>(query, key, start + v * kScores, to, stride);
            }
        }
    }
}

// Computes 2^value times 2^-floor(value), in 1..2, by a minimax polynomial of the fraction: relative error below 8e-5
// of degree 3, which a rounding to bf16 (2e-3) hides, and below 2e-7 of degree 5.
template <bool kExact>
inline __m512 power_of_fraction(__m512 fraction) {
    const auto step = [fraction](__m512 sum, float term) {
        return _mm512_fmadd_ps(sum, fraction, _mm512_set1_ps(term));
    };
    if constexpr (kExact) {
        __m512 sum = step(_mm512_set1_ps(0.0018670016f), 0.0090193093f);
        sum = step(step(step(sum, 0.055796716f), 0.24016556f), 0.69315135f);
        return step(sum, 0.99999994f);
    }
    const __m512 sum = step(_mm512_set1_ps(0.07802452f), 0.22606716f);
    return step(step(sum, 0.69583356f), 0.9999252f);
}

// Scales the scores of one query and adds bias and mask; returns the largest of each lane.
inline __m512 add_bias(int32_t* scores, const float* bias, const float* mask, int vectors, float score_per_level) {
    const __m512 scale = _mm512_set1_ps(score_per_level);
    float* values = reinterpret_cast<float*>(scores);
    __m512 largest = _mm512_set1_ps(-__builtin_inff());
    for (int i = 0; i < vectors * kScores; i += kScores) {
        const __m512 product = _mm512_cvtepi32_ps(_mm512_load_si512(scores + i));
        __m512 value = _mm512_fmadd_ps(product, scale, _mm512_loadu_ps(bias + i));
        if (mask != nullptr) value = _mm512_add_ps(value, _mm512_loadu_ps(mask + i));
        _mm512_store_ps(values + i, value);
        largest = _mm512_max_ps(largest, value);
    }
    return largest;
}

// Turns the scores of one query into shares that are not yet divided by their sum, which it returns. The largest is 1.
template <class Mix, bool kExact>
inline __m512 share(const float* values, float largest, int vectors, uint8_t* shares) {
    constexpr int kFraction = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;  // what is left of the next lower integer
    const __m512 most = _mm512_set1_ps(largest);
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < vectors * kScores; i += kScores) {
        const __m512 exponent = _mm512_sub_ps(_mm512_load_ps(values + i), most);
        const __m512 power = power_of_fraction<kExact>(_mm512_reduce_ps(exponent, kFraction));
        const __m512 one = _mm512_scalef_ps(power, exponent);
        sum = _mm512_add_ps(sum, one);
        Mix::store(one, shares, i);
    }
    return sum;
}

// Mixes the values of all positions for kQueries queries, and writes the levels of those that are no padding.
template <class Mix>
inline void mix(const WindowHead& head, int first, const uint8_t* shares, size_t stride, const float* sums,
                const uint8_t* values) {
    __m512 sum[kQueries][2];
#pragma GCC unroll 10
    for (int r = 0; r < kQueries; ++r) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
    const int lanes = Mix::lanes(head.area);
    for (int lane = 0; lane < lanes; ++lane) {
        const __m512i a = _mm512_load_si512(values + static_cast<size_t>(lane) * 128);
        const __m512i b = _mm512_load_si512(values + static_cast<size_t>(lane) * 128 + 64);
#pragma GCC unroll 10
        for (int r = 0; r < kQueries; ++r) {
            int32_t bits;
            __builtin_memcpy(&bits, shares + r * stride + static_cast<size_t>(lane) * 4, sizeof bits);
            const __m512i both = _mm512_set1_epi32(bits);
            sum[r][0] = Mix::add(sum[r][0], both, a);
            sum[r][1] = Mix::add(sum[r][1], both, b);
        }
    }
    const Levels& levels = head.output;
    const __m512 zero = _mm512_set1_ps(levels.zero);
#pragma GCC unroll 10
    for (int r = 0; r < kQueries; ++r) {
        uint8_t* to = first + r < head.area ? head.outputs[first + r] : nullptr;
        if (to == nullptr) continue;
        const __m512 per_unit = _mm512_set1_ps(levels.per_unit / sums[r]);
        const __m256i found = limited(_mm512_cvtps_epi32(_mm512_fmadd_ps(sum[r][0], per_unit, zero)),
                                      _mm512_cvtps_epi32(_mm512_fmadd_ps(sum[r][1], per_unit, zero)));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), found);
    }
}

template <class Mix, bool kExact>
void attend_head(const WindowHead& head, Stored stored, const HeadMemory& memory) {
    const int padded = head.padded, vectors = padded / kScores;
    const int blocks = (head.area + kKeysPacked - 1) / kKeysPacked;
    const int rows = (head.area + kQueries - 1) / kQueries * kQueries;
    uint8_t* const queries = memory.queries;
    int8_t* const keys = memory.keys;
    int32_t* const scores = memory.scores;
    int32_t* const start = scores + kQueries * padded;

    // The levels of the keys pass through the memory of the queries.
    write_levels(head, stored, head.head_offset + head.part_bytes, head.key, blocks * kKeysPacked, queries);
    for (int block = 0; block < blocks; ++block) {
        pack_keys(queries + block * kKeysPacked * kHeadWidth, keys + block * 2 * kKeyBytes);
    }
    write_start(keys, vectors, head.query.zero, start);
    write_levels(head, stored, head.head_offset, head.query, rows, queries);
    Mix::pack_values(head, stored, head.head_offset + 2 * head.part_bytes, memory.values);

    const size_t share_bytes = static_cast<size_t>(padded) * Mix::kShareBytes;
    for (int first = 0; first < head.area; first += kQueries) {
        score_all(queries + first * kHeadWidth, keys, vectors, start, scores);
        // One step for all queries after the other, so that their reductions overlap.
        __m512 largest[kQueries];
        float sums[kQueries];
        for (int r = 0; r < kQueries; ++r) {
            const int row = first + r < head.area ? first + r : first;  // what lies beyond is computed and dropped
            const float* mask = head.mask == nullptr ? nullptr : head.mask + row * padded;
            largest[r] = add_bias(scores + r * padded, head.bias + row * padded, mask, vectors, head.score_per_level);
        }
        for (int r = 0; r < kQueries; ++r) {
            const float* values_of = reinterpret_cast<const float*>(scores + r * padded);
            largest[r] = share<Mix, kExact>(values_of, _mm512_reduce_max_ps(largest[r]), vectors,
                                            memory.shares + r * share_bytes);
        }
        for (int r = 0; r < kQueries; ++r) sums[r] = _mm512_reduce_add_ps(largest[r]);
        mix<Mix>(head, first, memory.shares, share_bytes, sums, memory.values);
    }
}

}  // namespace
