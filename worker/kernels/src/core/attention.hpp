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
#include "deform.hpp"

namespace maskmill {

// Channels of one head, in every published Swin Transformer.
constexpr int kHeadWidth = 32;

// Levels 0 to 255: round(value * per_unit + zero), limited, as FakeQuantize with 256 levels makes them.
struct Levels {
    float per_unit = 1.0f;
    float zero = 0.0f;
};

// How a token is stored: as f32, or as bf16 in the low half of the same bits.
enum class Stored { f32, bf16 };

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

// What the inner loops need for one head of one window.
struct WindowHead {
    const uint8_t* const* rows;  // [area]: the token of each position
    uint8_t* const* outputs;     // [area]: where its result goes; null for padding
    size_t head_offset;          // bytes from the beginning of a token to its query
    size_t part_bytes;           // bytes from the query of a head to its key, and from its key to its value
    int area;
    const float* bias;  // [area][padded], times log2(e)
    const float* mask;  // the same, or null
    const AttentionLayer* layer;
};

// Scratch memory of one thread.
struct AttentionScratch {
    Buffer<uint8_t> queries, keys, values, scores, shares;
    Buffer<const uint8_t*> rows;
    Buffer<uint8_t*> outputs;

    static AttentionScratch& of_this_thread();
};

// One set of inner loops.
struct AttentionKernels {
    const char* name;
    void (*head)(const WindowHead& head, Stored stored, AttentionScratch& scratch);
};

// Returns the best set for this CPU and tokens that are stored like this, or null. It needs VNNI: without it, levels
// would have to be widened.
const AttentionKernels* choose_attention(Stored stored);

// The sets, each compiled for its instruction set. f32: with an error as small as that of f32, or of bf16.
extern const AttentionKernels attention_f32;
extern const AttentionKernels attention_f32_for_bf16;
extern const AttentionKernels attention_bf16;

// Positions, or tokens, rounded up to whole vectors.
constexpr int kScores = 16;
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
