#include "attention_avx512.hpp"

namespace {

struct MixF32 {
    static constexpr int kShareBytes = 4;

    static int lanes(int area) { return area; }
    static void store(__m512 shares, uint8_t* to, int first) {
        _mm512_store_ps(reinterpret_cast<float*>(to) + first, shares);
    }
    static __m512 add(__m512 sum, __m512i shares, __m512i values) {
        return _mm512_fmadd_ps(_mm512_castsi512_ps(shares), _mm512_castsi512_ps(values), sum);
    }

    // Writes two vectors for each position: the first 4 of every 8 channels, and the others, as `limited` puts them
    // together.
    static void pack_values(const WindowHead& head, Stored stored, size_t offset, uint8_t* to) {
        for (int i = 0; i < head.area; ++i, to += 128) {
            __m512 a, b;
            const Channels both = channels(head.rows[i] + offset, stored);
            if (stored == Stored::f32) {
                const __m512i first = _mm512_set_epi32(27, 26, 25, 24, 19, 18, 17, 16, 11, 10, 9, 8, 3, 2, 1, 0);
                a = _mm512_permutex2var_ps(both.a, first, both.b);
                b = _mm512_permutex2var_ps(both.a, _mm512_add_epi32(first, _mm512_set1_epi32(4)), both.b);
            } else {  // even and odd channels
                a = _mm512_unpacklo_ps(both.a, both.b);
                b = _mm512_unpackhi_ps(both.a, both.b);
            }
            _mm512_store_ps(to, a);
            _mm512_store_ps(to + 64, b);
        }
    }
};

}  // namespace

namespace maskmill {

const AttentionKernels attention_f32{"avx512_vnni, avx512_f32", attend_head<MixF32, true>};
const AttentionKernels attention_f32_for_bf16{"avx512_vnni, avx512_f32", attend_head<MixF32, false>};

}  // namespace maskmill
