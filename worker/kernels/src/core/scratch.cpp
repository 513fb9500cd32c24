#include "scratch.hpp"

#include <mutex>

namespace maskmill {

namespace {

struct Idle {
    std::mutex mutex;
    std::vector<std::unique_ptr<MapScratch>> scratches;
};

Idle& idle() {
    static Idle one;
    return one;
}

}  // namespace

Tile& Tile::of_this_thread() {
    thread_local Tile tile;
    return tile;
}

const Points* Tile::points(int taps, int pixels) {
    const size_t count = static_cast<size_t>(taps) * pixels;
    int32_t* base = base_.reserve(count);
    float* weight = weight_.reserve(4 * count);
    points_.resize(taps);
    for (int tap = 0; tap < taps; ++tap) {
        Points& one = points_[tap];
        one.base = base + static_cast<size_t>(tap) * pixels;
        for (int corner = 0; corner < 4; ++corner) {
            one.weight[corner] = weight + corner * count + static_cast<size_t>(tap) * pixels;
        }
    }
    return points_.data();
}

MapLease::MapLease() {
    {
        Idle& pool = idle();
        const std::lock_guard<std::mutex> guard(pool.mutex);
        if (!pool.scratches.empty()) {
            scratch_ = std::move(pool.scratches.back());
            pool.scratches.pop_back();
        }
    }
    if (scratch_ == nullptr) scratch_ = std::make_unique<MapScratch>();
}

MapLease::~MapLease() {
    Idle& pool = idle();
    const std::lock_guard<std::mutex> guard(pool.mutex);
    pool.scratches.push_back(std::move(scratch_));
}

}  // namespace maskmill
