#include "deform.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "scratch.hpp"

namespace maskmill {

namespace {

constexpr int kRunPixels = 96;     // a multiple of pixel_multiple in every set; sums of 96 x 256 stay in L2
constexpr int kRunsPerThread = 4;  // with fewer, runs are cut so that all threads get the same number
constexpr int kSignedZero = 128;

int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

// Returns the pixels of one run: few enough to fit the cache and to give every thread work.
int run_pixels(int plane, int threads, int multiple) {
    int runs = (plane + kRunPixels - 1) / kRunPixels;
    if (runs < kRunsPerThread * threads) runs = round_up(runs, threads);
    return std::min(kRunPixels, round_up((plane + runs - 1) / runs, multiple));
}

// The state of one call to `deform`, shared by its parallel parts.
struct Call {
    const Geometry& geometry;
    const Maps& maps;
    const PackedWeights& weights;
    const bool relu;
    const Parallel& parallel;

    uint8_t* pixels = nullptr;  // the padded map of the current image
    float* peak = nullptr;      // two maps [height + 2, width + 2]: peak of each pixel, then of each 2 x 2 block
    float* lowest = nullptr;    // [height]
    float largest = 0.0f;       // |value| of the image
    int picture = 0;
    bool negative = false;
    int run = 0;  // pixels of a run

    const Kernels& kernels() const { return weights.kernels(); }
    bool integer() const { return kernels().arithmetic == Arithmetic::i8; }
    int row_pixels() const { return geometry.width + 2; }
    size_t pixel_bytes() const { return static_cast<size_t>(weights.padded_channels()) * kernels().map_element_bytes; }
    size_t row_bytes() const { return row_pixels() * pixel_bytes(); }
    // The first value of row y of the padded map in the input.
    const float* row(int y) const {
        return maps.data + static_cast<size_t>(picture) * geometry.channels * geometry.in_plane() +
               static_cast<size_t>(y - 1) * geometry.width;
    }
    size_t map_pixels() const { return static_cast<size_t>(geometry.height + 2) * row_pixels(); }

    template <void (Call::*part)(int)>
    void in_parallel(int count) {
        parallel.run(count, [](void* self, int index) { (static_cast<Call*>(self)->*part)(index); }, this);
    }

    void measure_row(int y);
    void copy_row(int y);
    void pool_row(int y);
    void one_run(int index);
    void columns_times_weights(const PaddedMap& map, const Points* points, int padded, const int32_t* gain, int zero,
                               Tile& tile);
    void one_picture();
};

// Writes the peak of every pixel of row y, including the border.
void Call::measure_row(int y) {
    float* peaks = peak + static_cast<size_t>(y) * row_pixels();
    if (y == 0 || y == geometry.height + 1) {
        std::fill(peaks, peaks + row_pixels(), 0.0f);
        return;
    }
    peaks[0] = peaks[row_pixels() - 1] = 0.0f;
    kernels().measure_row(row(y), geometry.in_plane(), geometry.channels, geometry.width, peaks + 1, lowest + (y - 1));
}

// Writes row y of the padded map, including its border.
void Call::copy_row(int y) {
    uint8_t* to = pixels + y * row_bytes();
    if (y == 0 || y == geometry.height + 1) {
        std::memset(to, 0, row_bytes());
        return;
    }
    std::memset(to, 0, pixel_bytes());
    std::memset(to + row_bytes() - pixel_bytes(), 0, pixel_bytes());
    kernels().copy_row(row(y), geometry.in_plane(), geometry.channels, weights.padded_channels(), geometry.width,
                       largest > 0.0f ? kMapLevels / largest : 0.0f, to + pixel_bytes());
}

// Writes row y of the largest of the four peaks that a point with this base can reach.
void Call::pool_row(int y) {
    const float* upper = peak + static_cast<size_t>(y) * row_pixels();
    const float* lower = upper + row_pixels();
    float* to = peak + map_pixels() + static_cast<size_t>(y) * row_pixels();
    for (int x = 0; x + 1 < row_pixels(); ++x) {
        to[x] = std::max(std::max(upper[x], upper[x + 1]), std::max(lower[x], lower[x + 1]));
    }
}

void Call::one_run(int index) {
    Tile& tile = Tile::of_this_thread();
    const int taps = geometry.taps();
    const size_t plane = geometry.out_plane();
    const int begin = index * run;
    const int count = std::min(run, static_cast<int>(plane) - begin);
    const int padded = round_up(count, kernels().pixel_multiple);
    float* row = tile.rows.reserve(3 * kRunPixels);
    float* column = row + kRunPixels;
    float* scale = column + kRunPixels;
    for (int i = 0; i < count; ++i) {
        row[i] = static_cast<float>((begin + i) / geometry.out_width * geometry.stride_h - geometry.pad_top);
        column[i] = static_cast<float>((begin + i) % geometry.out_width * geometry.stride_w - geometry.pad_left);
    }
    const Points* points = tile.points(taps, kRunPixels);
    const PaddedMap map{pixels, peak + map_pixels(), largest, pixel_bytes(), row_bytes(), row_pixels()};
    const float* mask = maps.mask == nullptr ? nullptr : maps.mask + static_cast<size_t>(picture) * taps * plane;
    const float least = kernels().locate(geometry, maps.offsets + static_cast<size_t>(picture) * 2 * taps * plane, mask,
                                         Run{begin, count, padded, row, column}, map, points);
    int zero = 0;
    int32_t* gain = tile.gain.reserve(kRunPixels);
    if (integer()) {
        // Columns that may be negative are shifted by half of the range. After a ReLU, all 255 levels are used.
        const bool is_signed = negative || !(least >= 0.0f);
        zero = is_signed ? kSignedZero : 0;
        kernels().fit(map, points, taps, padded, is_signed, scale, gain);
    }
    columns_times_weights(map, points, padded, gain, zero, tile);
    if (maps.levels != nullptr) {
        uint8_t* levels = maps.levels + (static_cast<size_t>(picture) * plane + begin) * geometry.outputs;
        kernels().finish_levels(tile.sums.data(), weights.padded_outputs(), count, geometry.outputs, scale, zero,
                                weights.scale(), weights.sum(), weights.bias(), maps.step, levels);
        return;
    }
    float* output = maps.output + static_cast<size_t>(picture) * geometry.outputs * plane + begin;
    kernels().finish(tile.sums.data(), weights.padded_outputs(), count, geometry.outputs, scale, zero, weights.scale(),
                     weights.sum(), weights.bias(), relu, output, plane);
}

void Call::columns_times_weights(const PaddedMap& map, const Points* points, int padded, const int32_t* gain, int zero,
                                 Tile& tile) {
    const int taps = geometry.taps();
    const int tap_bytes = weights.padded_channels() * kernels().element_bytes;
    const int at_once = std::min(taps, std::max(1, kernels().column_bytes / tap_bytes));
    uint8_t* columns = tile.columns.reserve(static_cast<size_t>(at_once) * tap_bytes * kRunPixels);
    int32_t* sums = tile.sums.reserve(static_cast<size_t>(kRunPixels) * weights.padded_outputs());
    for (int tap = 0; tap < taps; tap += at_once) {
        const int some = std::min(at_once, taps - tap);
        kernels().sample(map, points + tap, some, padded, weights.padded_channels(), gain, zero, columns);
        kernels().multiply(columns, some * tap_bytes / 4, padded,
                           weights.data() + static_cast<size_t>(tap) * tap_bytes * kOutputBlock, weights.block_stride(),
                           weights.padded_outputs(), tap > 0, sums);
    }
}

void Call::one_picture() {
    negative = false;
    if (integer()) {
        in_parallel<&Call::measure_row>(geometry.height + 2);
        in_parallel<&Call::pool_row>(geometry.height + 1);
        negative = *std::min_element(lowest, lowest + geometry.height) < 0.0f;
        largest = *std::max_element(peak, peak + map_pixels());
    }
    in_parallel<&Call::copy_row>(geometry.height + 2);
    const int plane = static_cast<int>(geometry.out_plane());
    run = run_pixels(plane, parallel.threads(), kernels().pixel_multiple);
    in_parallel<&Call::one_run>((plane + run - 1) / run);
}

}  // namespace

void deform(const Geometry& geometry, const Maps& maps, const PackedWeights& weights, bool relu,
            const Parallel& parallel) {
    Call call{geometry, maps, weights, relu, parallel};
    if (call.map_pixels() > std::numeric_limits<int32_t>::max() ||
        geometry.out_plane() > std::numeric_limits<int32_t>::max()) {
        throw std::length_error("the map of a deformable convolution has more pixels than an index can count");
    }
    MapLease lease;
    MapScratch& scratch = lease.scratch();
    call.pixels = scratch.pixels.reserve(call.map_pixels() * call.pixel_bytes());
    call.peak = scratch.peak.reserve(2 * call.map_pixels());
    call.lowest = scratch.lowest.reserve(geometry.height);
    for (call.picture = 0; call.picture < geometry.batch; ++call.picture) call.one_picture();
}

}  // namespace maskmill
