// Plain threads instead of TBB, so that sanitizers see every synchronisation.
#pragma once

#include <atomic>
#include <thread>
#include <vector>

#include "../core/deform.hpp"

namespace maskmill {

class Threads : public Parallel {
public:
    explicit Threads(int count) : count_(count) {}
    int threads() const override { return count_; }
    void run(int count, void (*body)(void*, int), void* context) const override {
        std::atomic<int> next{0};
        const auto work = [&] {
            for (int i = next++; i < count; i = next++) body(context, i);
        };
        std::vector<std::thread> others;
        for (int i = 1; i < count_; ++i) others.emplace_back(work);
        work();
        for (std::thread& other : others) other.join();
    }

private:
    int count_;
};

}  // namespace maskmill
