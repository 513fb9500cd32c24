// What the inner loops of window attention see: plain data. A file that is compiled for AVX-512 must not call functions
// which others may share with it, such as those of the standard library: the linker keeps one copy of each.
#pragma once

#include <cstddef>
#include <cstdint>

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

// Scores are computed 16 at a time; positions of a window are padded to as many.
constexpr int kScores = 16;
constexpr int kQueries = 10;  // queries whose values are mixed at once; the 49 of a window are nearly 5 times as many
constexpr int kKeysPacked = 32;  // keys that are packed at once

// What the inner loops need for one head of one window.
struct WindowHead {
    const uint8_t* const* rows;  // [area]: the token of each position
    uint8_t* const* outputs;     // [area]: where its result goes; null for padding
    size_t head_offset;          // bytes from the beginning of a token to its query
    size_t part_bytes;           // bytes from the query of a head to its key, and from its key to its value
    int area;
    int padded;         // positions rounded up to kScores
    const float* bias;  // [area][padded], times log2(e)
    const float* mask;  // the same, or null
    Levels query, key, output;
    float score_per_level;
};

// Memory of one thread for one head, aligned to 64 bytes.
struct HeadMemory {
    uint8_t*
        queries;      // [positions rounded up to kQueries and to kKeysPacked][32], also for keys before they are packed
    int8_t* keys;     // [positions rounded up to kKeysPacked][32]
    uint8_t* values;  // [padded][128]
    int32_t* scores;  // [kQueries + 1][padded]
    uint8_t* shares;  // [kQueries][padded][4]
};

// One set of inner loops.
struct AttentionKernels {
    const char* name;
    void (*head)(const WindowHead& head, Stored stored, const HeadMemory& memory);
};

// The sets, each compiled for its instruction set. f32: with an error as small as that of f32, or of bf16.
extern const AttentionKernels attention_f32;
extern const AttentionKernels attention_f32_for_bf16;
extern const AttentionKernels attention_bf16;

}  // namespace maskmill
