#include "attention.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "isa.hpp"
#include "sets.hpp"

namespace maskmill {

namespace {

constexpr float kLog2E = 1.44269504f;  // scores are exponents of 2, which saves a product per score
constexpr float kNever = -1e30f;       // score of a position beyond the window; its share is 0

uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// Rounds to the nearest bf16, ties to even.
uint16_t to_bf16(float value) {
    const uint32_t bits = bits_of(value);
    return static_cast<uint16_t>((bits + ((bits >> 16) & 1) + 0x7fff) >> 16);
}

// Copies [count, area, area] to [count, area, padded], times log2(e).
void pad(const float* from, size_t count, int area, float* to) {
    const int padded = padded_area(area);
    for (size_t row = 0; row < count * area; ++row, from += area, to += padded) {
        for (int i = 0; i < padded; ++i) to[i] = i < area ? from[i] * kLog2E : kNever;
    }
}

// The state of one call to `attend`, shared by its parallel parts.
struct AttentionCall {
    const PackedAttention& packed;
    const AttentionKernels& kernels;
    const uint8_t* tokens;
    uint8_t* levels;

    void one_window(int window) const {
        const AttentionLayer& layer = packed.layer();
        AttentionScratch& scratch = AttentionScratch::of_this_thread();
        const uint8_t** rows = scratch.rows.reserve(layer.area);
        uint8_t** outputs = scratch.outputs.reserve(2 * layer.area);
        uint8_t** of_head = outputs + layer.area;
        const size_t value_bytes = packed.stored() == Stored::f32 ? 4 : 2;
        const size_t token_bytes = 3 * layer.channels() * value_bytes;
        const int32_t* order = packed.order() + static_cast<size_t>(window) * layer.area;
        for (int i = 0; i < layer.area; ++i) {
            const bool is_padding = order[i] == layer.tokens;
            rows[i] = is_padding ? packed.padding() : tokens + order[i] * token_bytes;
            outputs[i] = is_padding ? nullptr : levels + static_cast<size_t>(order[i]) * layer.channels();
        }
        for (int head = 0; head < layer.heads; ++head) {
            for (int i = 0; i < layer.area; ++i) {
                of_head[i] = outputs[i] == nullptr ? nullptr : outputs[i] + head * kHeadWidth;
            }
            const WindowHead one{rows,
                                 of_head,
                                 head * kHeadWidth * value_bytes,
                                 layer.channels() * value_bytes,
                                 layer.area,
                                 padded_area(layer.area),
                                 packed.bias(head),
                                 packed.mask(window),
                                 layer.query,
                                 layer.key,
                                 layer.output,
                                 layer.score_per_level};
            kernels.head(one, packed.stored(), scratch.memory(layer.area));
        }
    }
};

}  // namespace

AttentionScratch& AttentionScratch::of_this_thread() {
    thread_local AttentionScratch scratch;
    return scratch;
}

HeadMemory AttentionScratch::memory(int area) {
    const size_t padded = padded_area(area);
    const size_t packed_keys = (area + kKeysPacked - 1) / kKeysPacked * kKeysPacked;
    const size_t rows = std::max<size_t>(packed_keys, (area + kQueries - 1) / kQueries * kQueries);
    HeadMemory found;
    found.queries = queries.reserve(rows * kHeadWidth);
    found.keys = reinterpret_cast<int8_t*>(keys.reserve(packed_keys * kHeadWidth));
    found.values = values.reserve(padded * 128);
    found.scores = reinterpret_cast<int32_t*>(scores.reserve((kQueries + 1) * padded * 4));
    found.shares = shares.reserve(kQueries * padded * 4);
    return found;
}

const AttentionKernels* choose_attention(Stored stored) {
    if (!runs_here(avx512_vnni)) return nullptr;
    if (stored == Stored::f32) return &attention_f32;
    return choose(Arithmetic::bf16) == &avx512_bf16 ? &attention_bf16 : &attention_f32_for_bf16;
}

PackedAttention::PackedAttention(const AttentionLayer& layer, const AttentionTables& tables, Stored stored)
    : layer_(layer), stored_(stored) {
    check(tables);
    layer_.score_per_level *= kLog2E;
    order_.assign(tables.order, tables.order + static_cast<size_t>(layer.windows) * layer.area);
    const size_t row = 3 * layer.channels();
    uint8_t* padding = padding_.reserve(4 * row);
    for (size_t i = 0; i < row; ++i) {
        if (stored == Stored::f32) {
            std::memcpy(padding + 4 * i, tables.padding + i, 4);
        } else {
            const uint16_t value = to_bf16(tables.padding[i]);
            std::memcpy(padding + 2 * i, &value, 2);
        }
    }
    pad(tables.bias, layer.heads, layer.area, bias_.reserve(layer.heads * plane()));
    if (tables.masks == nullptr) return;
    kinds_.assign(tables.kinds, tables.kinds + layer.windows);
    pad(tables.masks, tables.masks_count, layer.area, masks_.reserve(tables.masks_count * plane()));
    const size_t values = static_cast<size_t>(layer.area) * layer.area;
    for (int kind = 0; kind < tables.masks_count; ++kind) {
        const float* mask = tables.masks + kind * values;
        masks_nothing_.push_back(std::all_of(mask, mask + values, [](float value) { return value == 0.0f; }));
    }
}

void PackedAttention::check(const AttentionTables& tables) const {
    std::vector<bool> seen(layer_.tokens);
    const size_t positions = static_cast<size_t>(layer_.windows) * layer_.area;
    int found = 0;
    for (size_t i = 0; i < positions; ++i) {
        const int32_t token = tables.order[i];
        if (token == layer_.tokens) continue;
        if (token < 0 || token > layer_.tokens || seen[token]) {
            throw std::invalid_argument("the order of tokens names a token twice, or one that does not exist");
        }
        seen[token] = true;
        ++found;
    }
    if (found != layer_.tokens) throw std::invalid_argument("the order of tokens leaves out a token");
    for (int window = 0; tables.masks != nullptr && window < layer_.windows; ++window) {
        if (tables.kinds[window] < 0 || tables.kinds[window] >= tables.masks_count) {
            throw std::invalid_argument("a window has a mask that does not exist");
        }
    }
}

const float* PackedAttention::mask(int window) const {
    if (kinds_.empty() || masks_nothing_[kinds_[window]]) return nullptr;
    return masks_.data() + kinds_[window] * plane();
}

void attend(const PackedAttention& packed, const AttentionKernels& kernels, const void* tokens, uint8_t* levels,
            const Parallel& parallel) {
    AttentionCall call{packed, kernels, static_cast<const uint8_t*>(tokens), levels};
    parallel.run(
        packed.layer().windows,
        [](void* self, int window) { static_cast<const AttentionCall*>(self)->one_window(window); }, &call);
}

}  // namespace maskmill
