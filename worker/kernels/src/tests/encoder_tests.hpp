// Window attention and layer norm against their definitions in double precision, on random layers.
#pragma once

#include <cmath>
#include <cstdio>
#include <limits>
#include <stdexcept>
#include <vector>

#include "../core/layer_norm.hpp"
#include "../core/sets.hpp"
#include "attention_problem.hpp"
#include "threads.hpp"

namespace maskmill {

// A level as FakeQuantize makes it, before it is limited.
inline float exact_level(float value, const Levels& levels) { return std::fmaf(value, levels.per_unit, levels.zero); }

inline int level(float value, const Levels& levels) {
    return static_cast<int>(std::min(std::max(std::nearbyint(exact_level(value, levels)), 0.0f), 255.0f));
}

// Returns whether a level is the rounded and limited value, which may be off by `error`.
inline bool is_level_of(int got, double value, double error) {
    const double low = std::min(std::max(value - error, 0.0), 255.0),
                 high = std::min(std::max(value + error, 0.0), 255.0);
    return got >= low - 0.501 && got <= high + 0.501;
}

// Compares the levels of one head of one window; `error` is the relative error of a share.
inline bool window_agrees(const AttentionProblem& p, int window, int head, double error,
                          const std::vector<uint8_t>& got) {
    const AttentionLayer& layer = p.layer;
    const int area = layer.area, channels = layer.channels();
    const int32_t* order = p.order.data() + static_cast<size_t>(window) * area;
    const auto token = [&](int position) {
        const bool is_padding = order[position] == layer.tokens;
        const float* from = is_padding ? p.padding.data() : p.tokens.data() + size_t(order[position]) * 3 * channels;
        return from + head * kHeadWidth;
    };
    std::vector<double> scores(area);
    for (int query = 0; query < area; ++query) {
        if (order[query] == layer.tokens) continue;
        double largest = -1e300, sum = 0;
        for (int key = 0; key < area; ++key) {
            double product = 0;
            for (int c = 0; c < kHeadWidth; ++c) {
                product += (level(token(query)[c], layer.query) - layer.query.zero) *
                           (level(token(key)[channels + c], layer.key) - layer.key.zero);
            }
            const size_t pair = static_cast<size_t>(query) * area + key;
            scores[key] = product * layer.score_per_level + p.bias[size_t(head) * area * area + pair];
            if (!p.kinds.empty()) scores[key] += p.masks[size_t(p.kinds[window]) * area * area + pair];
            largest = std::max(largest, scores[key]);
        }
        for (double& score : scores) sum += score = std::exp(score - largest);
        for (int c = 0; c < kHeadWidth; ++c) {
            double value = 0, magnitude = 0;
            for (int key = 0; key < area; ++key) {
                value += scores[key] / sum * token(key)[2 * channels + c];
                magnitude += scores[key] / sum * std::fabs(token(key)[2 * channels + c]);
            }
            const double exact = value * layer.output.per_unit + layer.output.zero;
            if (!is_level_of(got[size_t(order[query]) * channels + head * kHeadWidth + c], exact,
                             error * magnitude * layer.output.per_unit)) {
                return false;
            }
        }
    }
    return true;
}

inline bool attention_agrees(AttentionProblem p, const AttentionKernels& kernels, Stored stored, double error,
                             int threads) {
    auto tokens = p.stored(stored);
    const PackedAttention packed(p.layer, p.tables(), stored);
    const size_t size = static_cast<size_t>(p.layer.tokens) * p.layer.channels();
    std::vector<uint8_t> levels(size + 1, 77);
    attend(packed, kernels, tokens.data(), levels.data(), Threads(threads));
    bool agrees = levels.back() == 77;
    for (int window = 0; window < p.layer.windows; ++window) {
        for (int head = 0; head < p.layer.heads; ++head) {
            agrees = agrees && window_agrees(p, window, head, error, levels);
        }
    }
    // Values that are not finite: the result is undefined; sanitizers check the run.
    for (size_t i = 0; i + 4 <= tokens.size(); i += 68) tokens[i + 1] = tokens[i + 3] = 0xff;
    attend(packed, kernels, tokens.data(), levels.data(), Threads(threads));
    return agrees && levels.back() == 77;
}

inline bool check_attention(int number, std::mt19937& random, int threads) {
    if (!runs_here(avx512_vnni)) return true;
    const int areas[] = {1, 4, 7, 16, 17, 49, 49, 64, 144}, masks[] = {0, 0, 1, 4};
    const int area = areas[random() % 9];
    const AttentionProblem p = attention_problem(1 + static_cast<int>(random() % (3 * area)), area,
                                                 1 + static_cast<int>(random() % 4), masks[random() % 4], random);
    // Shares in f32 have the error of the exponents, of which the largest is some hundreds.
    bool agrees = attention_agrees(p, attention_f32, Stored::f32, 1e-4, threads) &&
                  attention_agrees(p, attention_f32_for_bf16, Stored::bf16, 3e-4, threads);
    if (runs_here(avx512_bf16)) agrees = agrees && attention_agrees(p, attention_bf16, Stored::bf16, 9e-3, threads);
    if (!agrees) {
        std::printf("window attention %d: %d tokens in %d windows of %d, %d heads, %zu masks, %d threads\n", number,
                    p.layer.tokens, p.layer.windows, area, p.layer.heads, p.masks.size() / (area * area), threads);
    }
    return agrees;
}

// Tables that name a token twice, leave one out, or point beyond the masks must be refused: they come from a file.
inline bool refuses_wrong_tables(std::mt19937& random) {
    const auto is_refused = [&](void (*damage)(AttentionProblem&)) {
        AttentionProblem p = attention_problem(60, 49, 1, 2, random);
        damage(p);
        try {
            const PackedAttention packed(p.layer, p.tables(), Stored::f32);
        } catch (const std::invalid_argument&) {
            return true;
        }
        return false;
    };
    return is_refused([](AttentionProblem& p) { p.kinds[0] = 2; }) &&
           is_refused([](AttentionProblem& p) { p.kinds[0] = -1; }) &&
           is_refused([](AttentionProblem& p) { *std::find(p.order.begin(), p.order.end(), 3) = 4; }) &&
           is_refused([](AttentionProblem& p) { *std::find(p.order.begin(), p.order.end(), 3) = 60; }) &&
           is_refused([](AttentionProblem& p) { *std::find(p.order.begin(), p.order.end(), 3) = 61; }) &&
           is_refused([](AttentionProblem& p) { *std::find(p.order.begin(), p.order.end(), 3) = -1; });
}

inline bool check_norm(int number, std::mt19937& random, int threads) {
    if (!normalises_here()) return true;
    std::normal_distribution<float> normal;
    const int channels = kNormChannels * (1 + static_cast<int>(random() % 60)),
              count = 1 + static_cast<int>(random() % 150);
    const Levels levels{20 + static_cast<float>(random() % 40), static_cast<float>(random() % 256)};
    const float spread = std::pow(10.0f, static_cast<float>(static_cast<int>(random() % 5) - 2));
    AttentionProblem p;  // stores tokens
    std::vector<float> gamma(channels), beta(channels);
    for (int c = 0; c < channels; ++c) {
        gamma[c] = normal(random);
        beta[c] = normal(random);
    }
    p.tokens.resize(static_cast<size_t>(count) * channels);
    for (float& value : p.tokens) value = spread * (3 + normal(random));
    const PackedNorm packed(gamma.data(), beta.data(), channels, 1e-5f, levels);
    for (const Stored stored : {Stored::bf16, Stored::f32}) {
        AttentionProblem rounded = p;
        const auto bytes = rounded.stored(stored);
        std::vector<uint8_t> got(rounded.tokens.size() + 1, 77);
        normalise(packed, bytes.data(), stored, count, got.data(), Threads(threads));
        bool agrees = got.back() == 77;
        for (int i = 0; i < count; ++i) {
            const float* token = rounded.tokens.data() + static_cast<size_t>(i) * channels;
            double mean = 0, variance = 0;
            for (int c = 0; c < channels; ++c) mean += token[c] / static_cast<double>(channels);
            for (int c = 0; c < channels; ++c) variance += (token[c] - mean) * (token[c] - mean) / channels;
            for (int c = 0; c < channels; ++c) {
                const double value = (token[c] - mean) / std::sqrt(variance + 1e-5) * gamma[c] + beta[c];
                const double exact = value * levels.per_unit + levels.zero;
                agrees = agrees && is_level_of(got[static_cast<size_t>(i) * channels + c], exact, 2e-3);
            }
        }
        if (!agrees) {
            std::printf("layer norm %d: %d tokens of %d channels, %d threads\n", number, count, channels, threads);
            return false;
        }
    }
    return true;
}

}  // namespace maskmill
