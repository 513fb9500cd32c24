// Runs the parts of a call on the threads that OpenVINO pinned for the stream.
#pragma once

#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include "../core/deform.hpp"

namespace maskmill {

// Runs in the current arena of the calling thread.
class Tbb : public Parallel {
public:
    int threads() const override { return tbb::this_task_arena::max_concurrency(); }
    void run(int count, void (*body)(void*, int), void* context) const override {
        tbb::parallel_for(0, count, [=](int index) { body(context, index); });
    }
};

}  // namespace maskmill
