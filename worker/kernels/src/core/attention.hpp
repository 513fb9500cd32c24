// Attention inside windows (Liu et al., "Swin Transformer", arXiv 2103.14030, section 3.2) of an INT8 network: queries
// and keys are multiplied as 8-bit levels, probabilities and values in bf16 or f32, and the result is written as
// levels.
//
//   tokens in the order of the picture -> per window and head: levels of queries and keys -> scores -> softmax
//   -> mixture of values -> levels, back in the order of the picture
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "aligned.hpp"
#include "attention_kernels.hpp"
#include "deform.hpp"

namespace maskmill {

// Sizes and scales of one layer. A token has the queries of all heads, then their keys, then their values.
struct AttentionLayer {
    int tokens = 0;
    int windows = 0;
    int area = 0;  // positions in a window
    int heads = 0;
    Levels query;  // `per_unit` includes the factor 1 / sqrt(width of a head)
    Levels key;
    Levels output;
    float score_per_level = 0;  // of the product of a query's and a key's level

    int channels() const { return heads * kHeadWidth; }
};

// Tables of one layer; `kinds` and `masks` may be null: nothing is masked.
struct AttentionTables {
    const int32_t* order = nullptr;  // [windows, area]: index of the token, or `tokens` for padding
    const float* padding = nullptr;  // [3 * channels]: the token that stands for padding
    const float* bias = nullptr;     // [heads, area, area], added to the scores
    const int32_t* kinds = nullptr;  // [windows]: index in `masks`
    const float* masks = nullptr;    // [count of masks, area, area], added to the scores
    int masks_count = 0;
};

// Scratch memory of one thread.
struct AttentionScratch {
    Buffer<uint8_t> queries, keys, values, scores, shares;
    Buffer<const uint8_t*> rows;
    Buffer<uint8_t*> outputs;

    static AttentionScratch& of_this_thread();

    HeadMemory memory(int area);
};

// Returns the best set for this CPU and tokens that are stored like this, or null. It needs VNNI: without it, levels
// would have to be widened.
const AttentionKernels* choose_attention(Stored stored);

// Positions, or tokens, rounded up to whole vectors.
inline int padded_area(int area) { return (area + kScores - 1) / kScores * kScores; }

// The tables of one layer in the layout of the inner loops. Read by any number of threads.
class PackedAttention {
public:
    // Throws std::invalid_argument if an index is out of range, or if not every token is in exactly one window.
    PackedAttention(const AttentionLayer& layer, const AttentionTables& tables, Stored stored);

    // As given, but `score_per_level` is times log2(e), as bias and masks are.
    const AttentionLayer& layer() const { return layer_; }
    Stored stored() const { return stored_; }
    const int32_t* order() const { return order_.data(); }
    const uint8_t* padding() const { return padding_.data(); }
    const float* bias(int head) const { return bias_.data() + head * plane(); }
    // Null where nothing is masked.
    const float* mask(int window) const;

private:
    size_t plane() const { return static_cast<size_t>(layer_.area) * padded_area(layer_.area); }
    void check(const AttentionTables& tables) const;

    AttentionLayer layer_;
    Stored stored_;
    std::vector<int32_t> order_, kinds_;
    std::vector<bool> masks_nothing_;
    Buffer<uint8_t> padding_;
    Buffer<float> bias_, masks_;
};

// Computes one layer: tokens [tokens, 3 * channels] as `packed` says, to levels [tokens, channels].
void attend(const PackedAttention& packed, const AttentionKernels& kernels, const void* tokens, uint8_t* levels,
            const Parallel& parallel);

}  // namespace maskmill
