// Memory that outlives a call: allocating and faulting in some 10 MB for each would cost milliseconds.
#pragma once

#include <memory>
#include <vector>

#include "aligned.hpp"
#include "isa.hpp"

namespace maskmill {

// What one thread needs for one run of pixels; a few hundred kB.
struct Tile {
    Buffer<float> rows;
    Buffer<uint8_t> columns;
    Buffer<int32_t> sums;

    static Tile& of_this_thread();

    // Points of all taps, each tap with room for `pixels`.
    const Points* points(int taps, int pixels);

private:
    Buffer<int32_t> base_;
    Buffer<float> weight_;
    std::vector<Points> points_;
};

// What one call needs: the padded map.
struct MapScratch {
    Buffer<uint8_t> pixels;
    Buffer<float> peak;
    Buffer<float> lowest;
};

// Takes a scratch from the process's idle ones, or makes one; gives it back at the end. As many exist as calls were
// ever in flight at once, so one per stream.
class MapLease {
public:
    MapLease();
    ~MapLease();
    MapLease(const MapLease&) = delete;
    MapLease& operator=(const MapLease&) = delete;
    MapScratch& scratch() { return *scratch_; }

private:
    std::unique_ptr<MapScratch> scratch_;
};

}  // namespace maskmill
