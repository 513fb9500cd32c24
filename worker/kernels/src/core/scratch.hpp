// Memory that outlives a call: allocating and faulting in some 10 MB per call would take milliseconds.
#pragma once

#include <memory>
#include <vector>

#include "aligned.hpp"
#include "isa.hpp"

namespace maskmill {

// Scratch memory of one thread for one run of pixels, a few hundred kB.
struct Tile {
    Buffer<float> rows;
    Buffer<uint8_t> columns;
    Buffer<int32_t> sums;
    Buffer<int32_t> gain;

    static Tile& of_this_thread();

    // Returns the points of all taps, with space for `pixels` per tap.
    const Points* points(int taps, int pixels);

private:
    Buffer<int32_t> base_;
    Buffer<float> weight_;
    std::vector<Points> points_;
};

// Scratch memory of one call: the padded map.
struct MapScratch {
    Buffer<uint8_t> pixels;
    Buffer<float> peak;
    Buffer<float> lowest;
};

// Takes an idle scratch of the process, or creates one, and returns it at the end. As many exist as calls were ever in
// flight at the same time, so one per stream.
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
