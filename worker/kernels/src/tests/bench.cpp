// Times the kernels with every set of inner loops that runs on this CPU: one deformable convolution of the decoder, and
// window attention of the four stages of Swin-T at 512 x 512. The CPU time of all threads, which other load changes
// little, and the rate per core.
//
//   kernels_bench [side of the map = 256] [kernel = 7] [threads = 2] [rounds = 5]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>

#include "../core/deform.hpp"
#include "attention_problem.hpp"
#include "threads.hpp"

namespace {

using namespace maskmill;

void time_attention(int threads, int rounds) {
    constexpr int kArea = 49, kTokens[] = {16384, 4096, 1024, 256}, kHeads[] = {3, 6, 12, 24};
    std::mt19937 random(1);
    for (const Stored how : {Stored::bf16, Stored::f32}) {
        const AttentionKernels* kernels = choose_attention(how);
        for (int stage = 0; kernels != nullptr && stage < 4; ++stage) {
            AttentionProblem p = attention_problem(kTokens[stage], kArea, kHeads[stage], 4, random);
            const auto tokens = p.stored(how);
            const PackedAttention packed(p.layer, p.tables(), how);
            std::vector<uint8_t> levels(static_cast<size_t>(p.layer.tokens) * p.layer.channels());
            double best = 1e9;
            for (int round = 0; round < rounds; ++round) {
                const std::clock_t began = std::clock();
                attend(packed, *kernels, tokens.data(), levels.data(), Threads(threads));
                best = std::min(best, static_cast<double>(std::clock() - began) / CLOCKS_PER_SEC);
            }
            const double heads = static_cast<double>(p.layer.windows) * p.layer.heads;
            std::printf("%-26s stage %d %8.2f ms %8.2f us per head of a window\n",
                        how == Stored::bf16 ? "attention, bf16 tokens" : "attention, f32 tokens", stage + 1, best * 1e3,
                        best / heads * 1e6);
        }
    }
}

}  // namespace

int main(int count, char** words) {
    const int side = count > 1 ? std::atoi(words[1]) : 256;
    const int kernel = count > 2 ? std::atoi(words[2]) : 7;
    const int threads = count > 3 ? std::atoi(words[3]) : 2;
    const int rounds = count > 4 ? std::atoi(words[4]) : 5;
    Geometry g;
    g.channels = 64;
    g.outputs = 256;
    g.height = g.width = g.out_height = g.out_width = side;
    g.kernel_h = g.kernel_w = kernel;
    g.pad_top = g.pad_left = kernel / 2;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    const auto filled = [&](size_t size, float spread, bool positive) {
        std::vector<float> values(size);
        for (float& value : values) value = positive ? std::max(0.0f, normal(random)) : spread * normal(random);
        return values;
    };
    const auto data = filled(g.channels * g.in_plane(), 1, true);
    const auto offsets = filled(2 * g.taps() * g.out_plane(), 1.0f, false);
    const auto mask = filled(g.taps() * g.out_plane(), 1, true);
    const auto weights = filled(static_cast<size_t>(g.outputs) * g.channels * g.taps(), 0.02f, false);
    const std::vector<float> bias(g.outputs, 0.1f);
    std::vector<float> output(g.outputs * g.out_plane());
    Maps maps;
    maps.data = data.data();
    maps.offsets = offsets.data();
    maps.mask = mask.data();
    maps.output = output.data();
    const double work = 2.0 * g.outputs * g.channels * g.taps() * g.out_plane();
    for (const Kernels* const* one = all_kernels(); *one != nullptr; ++one) {
        if (!runs_here(**one)) continue;
        const PackedWeights packed(**one, weights.data(), bias.data(), g.outputs, g.channels, g.taps());
        double best = 1e9;
        for (int round = 0; round < rounds; ++round) {
            const std::clock_t began = std::clock();
            deform(g, maps, packed, true, Threads(threads));
            best = std::min(best, static_cast<double>(std::clock() - began) / CLOCKS_PER_SEC);
        }
        std::printf("%-12s %8.1f ms %8.0f Gop/s\n", (*one)->name, best * 1e3, work / best / 1e9);
    }
    time_attention(threads, rounds);
    return 0;
}
