// Random layers of window attention for the test and the benchmark.
#pragma once

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "../core/attention.hpp"

namespace maskmill {

// A layer with its tables, which the pointers of `tables()` refer to.
struct AttentionProblem {
    AttentionLayer layer;
    std::vector<float> tokens, padding, bias, masks;
    std::vector<int32_t> order, kinds;

    AttentionTables tables() const {
        AttentionTables all;
        all.order = order.data();
        all.padding = padding.data();
        all.bias = bias.data();
        if (!kinds.empty()) {
            all.kinds = kinds.data();
            all.masks = masks.data();
            all.masks_count = static_cast<int>(masks.size() / (layer.area * layer.area));
        }
        return all;
    }

    // The tokens as `attend` reads them. Rounds the values that the problem holds, so that they are the same.
    std::vector<uint8_t> stored(Stored how) {
        std::vector<uint8_t> bytes;
        for (auto* values : {&tokens, &padding}) {
            for (float& value : *values) {
                uint32_t bits;
                std::memcpy(&bits, &value, sizeof bits);
                if (how == Stored::bf16) bits &= 0xffff0000u;
                std::memcpy(&value, &bits, sizeof bits);
                if (values != &tokens) continue;
                const auto* from = reinterpret_cast<const uint8_t*>(&bits);
                bytes.insert(bytes.end(), how == Stored::bf16 ? from + 2 : from, from + 4);
            }
        }
        return bytes;
    }
};

// Returns a layer whose windows hold `tokens` tokens in a random order, and padding.
inline AttentionProblem attention_problem(int tokens, int area, int heads, int masks, std::mt19937& random) {
    std::normal_distribution<float> normal;
    const auto filled = [&](size_t size, float spread) {
        std::vector<float> values(size);
        for (float& value : values) value = spread * normal(random);
        return values;
    };
    AttentionProblem p;
    AttentionLayer& layer = p.layer;
    layer.tokens = tokens;
    layer.area = area;
    layer.heads = heads;
    layer.windows = (tokens + area - 1) / area + static_cast<int>(random() % 2);
    layer.query = {255 / 3.0f * 0.17677669f, 128};
    layer.key = {255 / 10.0f, 121};
    layer.output = {255 / 4.0f, 130};
    layer.score_per_level = 1 / (255 / 3.0f * 255 / 10.0f);
    p.tokens = filled(static_cast<size_t>(tokens) * 3 * layer.channels(), 1.5f);
    p.padding = filled(3 * layer.channels(), 0.3f);
    p.bias = filled(static_cast<size_t>(heads) * area * area, 1.0f);
    p.order.resize(static_cast<size_t>(layer.windows) * area, tokens);
    for (int i = 0; i < tokens; ++i) p.order[i] = i;
    std::shuffle(p.order.begin(), p.order.end(), random);
    if (masks == 0) return p;
    p.masks.resize(static_cast<size_t>(masks) * area * area);
    for (size_t i = static_cast<size_t>(area) * area; i < p.masks.size(); ++i) {  // the first masks nothing
        p.masks[i] = i / area % area != i % area && random() % 3 == 0 ? -1e4f : 0.0f;
    }
    for (int i = 0; i < layer.windows; ++i) p.kinds.push_back(static_cast<int32_t>(random() % masks));
    return p;
}

}  // namespace maskmill
