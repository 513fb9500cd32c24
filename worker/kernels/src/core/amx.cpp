// Products on AMX tiles; everything else as in the AVX-512 sets. Sums of 32 pixels x 32 outputs stay in four tiles.
//
// Written from Intel's intrinsics guide, not yet run on a CPU with AMX.
#include "sample_bf16.hpp"
#include "sets.hpp"

namespace {

constexpr int kTile = 16;        // rows of a tile, and its 32-bit columns
constexpr int kTileLanes = 16;   // lanes of depth that one tile of columns holds: 64 bytes
constexpr int kWeightRow = 256;  // bytes from one lane of weights to the next: 64 outputs

struct alignas(64) TileConfig {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {kTile, kTile, kTile, kTile, kTile, kTile, kTile, kTile};
};

// Configures the tile registers for its lifetime.
struct Tiles {
    Tiles() {
        static const TileConfig config;
        _tile_loadconfig(&config);
    }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

// The intrinsics are macros that need literal tile numbers, because the number is part of the instruction.
#define MASKMILL_SUM00 0
#define MASKMILL_SUM01 1
#define MASKMILL_SUM10 2
#define MASKMILL_SUM11 3
#define MASKMILL_COLUMN0 4
#define MASKMILL_COLUMN1 5
#define MASKMILL_WEIGHT0 6
#define MASKMILL_WEIGHT1 7

template <bool kInteger>
void product(const uint8_t* columns, size_t stride, const uint8_t* weights, int lanes, bool accumulate, uint8_t* sums,
             size_t sum_stride) {
    uint8_t* lower = sums + kTile * sum_stride;
    if (accumulate) {
        _tile_loadd(MASKMILL_SUM00, sums, sum_stride);
        _tile_loadd(MASKMILL_SUM01, sums + 64, sum_stride);
        _tile_loadd(MASKMILL_SUM10, lower, sum_stride);
        _tile_loadd(MASKMILL_SUM11, lower + 64, sum_stride);
    } else {
        _tile_zero(MASKMILL_SUM00);
        _tile_zero(MASKMILL_SUM01);
        _tile_zero(MASKMILL_SUM10);
        _tile_zero(MASKMILL_SUM11);
    }
    for (int lane = 0; lane < lanes; lane += kTileLanes) {
        _tile_loadd(MASKMILL_COLUMN0, columns + lane * 4, stride);
        _tile_loadd(MASKMILL_COLUMN1, columns + kTile * stride + lane * 4, stride);
        _tile_loadd(MASKMILL_WEIGHT0, weights + static_cast<size_t>(lane) * kWeightRow, kWeightRow);
        _tile_loadd(MASKMILL_WEIGHT1, weights + static_cast<size_t>(lane) * kWeightRow + 64, kWeightRow);
        if constexpr (kInteger) {
            _tile_dpbusd(MASKMILL_SUM00, MASKMILL_COLUMN0, MASKMILL_WEIGHT0);
            _tile_dpbusd(MASKMILL_SUM01, MASKMILL_COLUMN0, MASKMILL_WEIGHT1);
            _tile_dpbusd(MASKMILL_SUM10, MASKMILL_COLUMN1, MASKMILL_WEIGHT0);
            _tile_dpbusd(MASKMILL_SUM11, MASKMILL_COLUMN1, MASKMILL_WEIGHT1);
        } else {
            _tile_dpbf16ps(MASKMILL_SUM00, MASKMILL_COLUMN0, MASKMILL_WEIGHT0);
            _tile_dpbf16ps(MASKMILL_SUM01, MASKMILL_COLUMN0, MASKMILL_WEIGHT1);
            _tile_dpbf16ps(MASKMILL_SUM10, MASKMILL_COLUMN1, MASKMILL_WEIGHT0);
            _tile_dpbf16ps(MASKMILL_SUM11, MASKMILL_COLUMN1, MASKMILL_WEIGHT1);
        }
    }
    _tile_stored(MASKMILL_SUM00, sums, sum_stride);
    _tile_stored(MASKMILL_SUM01, sums + 64, sum_stride);
    _tile_stored(MASKMILL_SUM10, lower, sum_stride);
    _tile_stored(MASKMILL_SUM11, lower + 64, sum_stride);
}

template <bool kInteger>
void multiply_tiles(const uint8_t* columns, int lanes, int pixels, const uint8_t* weights, size_t block_stride,
                    int padded_outputs, bool accumulate, void* sums) {
    const Tiles configured;
    const size_t stride = static_cast<size_t>(lanes) * 4;
    const size_t sum_stride = static_cast<size_t>(padded_outputs) * 4;
    for (int output = 0; output < padded_outputs; output += 2 * kTile) {
        const uint8_t* block = weights + output / maskmill::kOutputBlock * block_stride +
                               static_cast<size_t>(output % maskmill::kOutputBlock) * 4;
        for (int pixel = 0; pixel < pixels; pixel += 2 * kTile) {
            product<kInteger>(columns + pixel * stride, stride, block, lanes, accumulate,
                              static_cast<uint8_t*>(sums) + pixel * sum_stride + static_cast<size_t>(output) * 4,
                              sum_stride);
        }
    }
}

}  // namespace

namespace maskmill {

const Kernels amx_i8{"amx_i8",
                     Arithmetic::i8,
                     2 * kTile,
                     64,
                     1,
                     2,
                     kColumnBytes,
                     measure_row,
                     copy_row<Arithmetic::i8>,
                     locate,
                     fit,
                     sample_u8,
                     multiply_tiles<true>,
                     finish<true>,
                     finish_levels};
const Kernels amx_bf16{"amx_bf16",
                       Arithmetic::bf16,
                       2 * kTile,
                       32,
                       2,
                       2,
                       kColumnBytes,
                       nullptr,
                       copy_row<Arithmetic::bf16>,
                       locate,
                       nullptr,
                       sample_bf16,
                       multiply_tiles<false>,
                       finish<false>,
                       nullptr};

}  // namespace maskmill
