#include "attention_avx512.hpp"

namespace {

struct MixBf16 {
    static constexpr int kShareBytes = 2;

    static int lanes(int area) { return (area + 1) / 2; }
    static void store(__m512 shares, uint8_t* to, int first) {
        const __m256bh rounded = _mm512_cvtneps_pbh(shares);
        __builtin_memcpy(to + first * kShareBytes, &rounded, sizeof rounded);
    }
    static __m512 add(__m512 sum, __m512i shares, __m512i values) {
        return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(shares), reinterpret_cast<__m512bh>(values));
    }

    // Returns the channels of a value in their own order.
    static __m512i value(const uint8_t* at, Stored stored) {
        if (stored == Stored::bf16) return _mm512_loadu_si512(at);
        const Channels both = channels(at, stored);
        return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(both.b, both.a));
    }

    // Writes two vectors for each pair of positions: [channel][position]. Each 128-bit part of the first has the first
    // 4 of 8 channels, that of the second the others, as `limited` puts them together.
    static void pack_values(const WindowHead& head, Stored stored, size_t offset, uint8_t* to) {
        for (int i = 0; i < head.area; i += 2, to += 128) {
            const __m512i one = value(head.rows[i] + offset, stored);
            const __m512i next = i + 1 < head.area ? value(head.rows[i + 1] + offset, stored) : _mm512_setzero_si512();
            _mm512_store_si512(to, _mm512_unpacklo_epi16(one, next));
            _mm512_store_si512(to + 64, _mm512_unpackhi_epi16(one, next));
        }
    }
};

}  // namespace

namespace maskmill {

const AttentionKernels attention_bf16{"avx512_vnni, avx512_bf16", attend_head<MixBf16, false>};

}  // namespace maskmill
