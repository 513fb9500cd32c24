// Compares every set of inner loops that runs on this CPU with the definition, on random problems: deformable
// convolution, window attention and layer norm.
//
//   kernels_test [problems = 60] [seed = 1]      on the first difference prints the problem and exits with code 1
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>

#include "encoder_tests.hpp"
#include "reference.hpp"
#include "threads.hpp"

namespace {

using namespace maskmill;

struct Problem {
    Geometry g;
    std::vector<float> data, offsets, mask, weights, bias;
    bool relu = false;
    bool masked = true;

    Maps maps(float* output) const {
        Maps all;
        all.data = data.data();
        all.offsets = offsets.data();
        all.mask = masked ? mask.data() : nullptr;
        all.output = output;
        return all;
    }
    const float* bias_or_null() const { return bias.empty() ? nullptr : bias.data(); }
};

class Random {
public:
    explicit Random(unsigned seed) : engine_(seed) {}
    int upto(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine_); }
    bool chance(int percent) { return upto(1, 100) <= percent; }
    float normal() { return normal_(engine_); }
    std::vector<float> values(size_t count, float spread, bool positive) {
        std::vector<float> out(count);
        for (float& value : out) value = positive ? std::fabs(spread * normal()) : spread * normal();
        return out;
    }

private:
    std::mt19937 engine_;
    std::normal_distribution<float> normal_;
};

// Returns an arbitrary offset, including values that are not finite.
float wild(Random& random) {
    switch (random.upto(0, 8)) {
        case 0:
            return std::numeric_limits<float>::quiet_NaN();
        case 1:
            return std::numeric_limits<float>::infinity();
        case 2:
            return -std::numeric_limits<float>::infinity();
        case 3:
            return std::numeric_limits<float>::max();
        case 4:
            return -std::numeric_limits<float>::max();
        case 5:
            return std::numeric_limits<float>::denorm_min();
        case 6:
            return 1e9f * random.normal();
        case 7:
            return static_cast<float>(random.upto(-40, 40));  // exactly on pixels, borders included
        default:
            return 20 * random.normal();
    }
}

Problem problem(Random& random) {
    Problem p;
    Geometry& g = p.g;
    const int channels[] = {1, 3, 16, 31, 64, 64, 65, 96};
    const int outputs[] = {1, 7, 16, 63, 64, 80};
    g.batch = random.chance(20) ? 2 : 1;
    g.channels = channels[random.upto(0, 7)];
    g.outputs = outputs[random.upto(0, 5)];
    g.height = random.upto(1, 19);
    g.width = random.upto(1, 35);
    g.kernel_h = random.upto(1, 4);
    g.kernel_w = random.chance(60) ? g.kernel_h : random.upto(1, 5);
    g.stride_h = random.upto(1, 2);
    g.stride_w = random.upto(1, 2);
    g.dilation_h = random.upto(1, 2);
    g.dilation_w = random.upto(1, 2);
    g.pad_top = g.dilation_h * (g.kernel_h - 1) / 2 + random.upto(0, 2);
    g.pad_left = g.dilation_w * (g.kernel_w - 1) / 2 + random.upto(0, 2);
    g.out_height = std::max(1, (g.height + 2 * g.pad_top - g.dilation_h * (g.kernel_h - 1) - 1) / g.stride_h + 1);
    g.out_width = std::max(1, (g.width + 2 * g.pad_left - g.dilation_w * (g.kernel_w - 1) - 1) / g.stride_w + 1);
    const bool positive = random.chance(60);
    p.data = random.values(g.batch * g.channels * g.in_plane(), 1, positive);
    if (random.chance(30)) {  // bright and dark regions
        for (size_t i = 0; i < p.data.size(); ++i) {
            p.data[i] *= std::pow(10.0f, -static_cast<float>(i / g.width % g.height % 5));
        }
    }
    p.offsets = random.values(g.batch * 2 * g.taps() * g.out_plane(), 1.5f, false);
    if (random.chance(60)) {
        for (float& offset : p.offsets) {
            if (random.chance(25)) offset = wild(random);
        }
    }
    p.mask = random.values(g.batch * g.taps() * g.out_plane(), 1, random.chance(80));
    p.masked = random.chance(90);
    p.weights = random.values(static_cast<size_t>(g.outputs) * g.channels * g.taps(), 0.1f, false);
    if (random.chance(20)) std::fill(p.weights.begin(), p.weights.begin() + g.channels * g.taps(), 0.0f);
    if (random.chance(10)) std::fill(p.data.begin(), p.data.end(), 0.0f);
    if (random.chance(80)) p.bias = random.values(g.outputs, 0.5f, false);
    p.relu = random.chance(50);
    return p;
}

// Returns the largest ratio of an error to its bound, or a huge number if an output is not finite.
double worst(const std::vector<float>& got, const Expected& wanted, Arithmetic arithmetic) {
    double ratio = 0;
    const auto& bound = wanted.bound(arithmetic);
    for (size_t i = 0; i < got.size(); ++i) {
        if (!std::isfinite(got[i])) return 1e9;
        ratio = std::max(ratio, std::fabs(got[i] - wanted.value[i]) / bound[i]);
    }
    return ratio;
}

// Runs the same problem in several concurrent calls with separate threads, as streams do.
bool at_once(const Problem& p, const PackedWeights& packed, const std::vector<float>& wanted, int callers) {
    std::vector<std::vector<float>> got(callers, std::vector<float>(wanted.size(), -1.0f));
    std::vector<std::thread> threads;
    for (int i = 0; i < callers; ++i) {
        threads.emplace_back([&, i] { deform(p.g, p.maps(got[i].data()), packed, p.relu, Threads(1 + i)); });
    }
    for (std::thread& thread : threads) thread.join();
    for (const auto& one : got) {
        if (one != wanted) return false;
    }
    return true;
}

// Runs with maps and modulators that are not finite. The result is undefined; sanitizers check the run.
void survives(Problem p, const PackedWeights& packed, int threads, unsigned seed) {
    Random random(seed);
    for (auto* values : {&p.data, &p.mask, &p.offsets}) {
        for (float& value : *values) {
            if (random.chance(20)) value = wild(random);
        }
    }
    std::vector<float> output(p.g.batch * p.g.outputs * p.g.out_plane());
    deform(p.g, p.maps(output.data()), packed, p.relu, Threads(threads));
}

// Returns whether the u8 output, channels last, holds the rounded values of the f32 output of as many threads.
bool levels_agree(const Problem& p, const PackedWeights& packed, const std::vector<float>& values, int threads) {
    const float step = 0.01f;
    const Geometry& g = p.g;
    std::vector<uint8_t> levels(values.size() + 1, 77);
    Maps maps = p.maps(nullptr);
    maps.levels = levels.data();
    maps.step = step;
    deform(g, maps, packed, p.relu, Threads(threads));
    if (levels.back() != 77) return false;  // one behind the last
    const size_t plane = g.out_plane();
    for (size_t i = 0; i < values.size(); ++i) {
        const size_t picture = i / (g.outputs * plane), o = i / plane % g.outputs, pixel = i % plane;
        const float exact = std::min(std::max(values[i] / step, 0.0f), 255.0f);
        const float got = levels[(picture * plane + pixel) * g.outputs + o];
        if (!(std::fabs(got - exact) <= 0.501f)) return false;
    }
    return true;
}

bool check(int number, const Problem& p, const Expected& wanted, const Kernels& kernels, int threads) {
    const Geometry& g = p.g;
    const PackedWeights packed(kernels, p.weights.data(), p.bias_or_null(), g.outputs, g.channels, g.taps());
    std::vector<float> output(wanted.value.size(), std::numeric_limits<float>::quiet_NaN());
    deform(g, p.maps(output.data()), packed, p.relu, Threads(threads));
    survives(p, packed, threads, static_cast<unsigned>(number));
    const double ratio = worst(output, wanted, kernels.arithmetic);
    const bool alike = number % 10 != 0 || at_once(p, packed, output, 4);
    if (kernels.finish_levels != nullptr && !levels_agree(p, packed, output, threads)) {
        std::printf("problem %d on %s: the levels differ from the values\n", number, kernels.name);
        return false;
    }
    if (ratio <= 1 && alike) return true;
    std::printf("problem %d on %s with %d threads: error %g of its bound, %s\n", number, kernels.name, threads, ratio,
                alike ? "streams agree" : "streams disagree");
    std::printf("  %d x %d x %d x %d -> %d x %d x %d, kernel %d x %d, stride %d %d, dilation %d %d\n", g.batch,
                g.channels, g.height, g.width, g.outputs, g.out_height, g.out_width, g.kernel_h, g.kernel_w, g.stride_h,
                g.stride_w, g.dilation_h, g.dilation_w);
    return false;
}

}  // namespace

int main(int count, char** words) {
    const int problems = count > 1 ? std::atoi(words[1]) : 60;
    Random random(count > 2 ? static_cast<unsigned>(std::atoi(words[2])) : 1u);
    for (int number = 0; number < problems; ++number) {
        const Problem p = problem(random);
        const Expected wanted = expected(p.g, p.maps(nullptr), p.weights.data(), p.bias_or_null(), p.relu);
        const int threads = 1 + number % 8;
        for (const Kernels* const* one = all_kernels(); *one != nullptr; ++one) {
            if (runs_here(**one) && !check(number, p, wanted, **one, threads)) return 1;
        }
    }
    std::mt19937 layers(count > 2 ? static_cast<unsigned>(std::atoi(words[2])) : 1u);
    for (int number = 0; number < problems; ++number) {
        const int threads = 1 + number % 8;
        if (!check_attention(number, layers, threads) || !check_norm(number, layers, threads)) return 1;
    }
    if (!refuses_wrong_tables(layers)) {
        std::printf("window attention accepts wrong tables\n");
        return 1;
    }
    for (const Kernels* const* one = all_kernels(); *one != nullptr; ++one) {
        std::printf("%-12s %s\n", (*one)->name, runs_here(**one) ? "tested" : "not on this CPU");
    }
    return 0;
}
