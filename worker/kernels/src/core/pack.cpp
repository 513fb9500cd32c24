#include <algorithm>
#include <cmath>
#include <cstring>

#include "deform.hpp"

namespace maskmill {

namespace {

constexpr int kLaneBytes = 4;
constexpr float kWeightLevels = 127.0f;

int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

// Rounds to the nearest bf16, ties to even.
uint16_t to_bf16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace

PackedWeights::PackedWeights(const Kernels& kernels, const float* weights, const float* bias, int outputs, int channels,
                             int taps)
    : kernels_(&kernels),
      padded_channels_(round_up(channels, kernels.channel_multiple)),
      padded_outputs_(round_up(outputs, kOutputBlock)),
      block_stride_(static_cast<size_t>(taps) * padded_channels_ * kernels.element_bytes * kOutputBlock),
      data_(block_stride_ * (padded_outputs_ / kOutputBlock)),
      bias_(padded_outputs_, 0.0f) {
    std::memset(data_.data(), 0, data_.size());
    if (bias != nullptr) std::copy(bias, bias + outputs, bias_.begin());
    const bool integer = kernels.arithmetic == Arithmetic::i8;
    if (integer) {
        scale_.assign(padded_outputs_, 0.0f);
        sum_.assign(padded_outputs_, 0);
    }
    const int bytes = kernels.element_bytes;
    const int per_lane = kLaneBytes / bytes;
    const size_t per_output = static_cast<size_t>(channels) * taps;
    for (int o = 0; o < outputs; ++o) {
        const float* own = weights + o * per_output;
        float inverse = 0.0f;
        if (integer) {
            float peak = 0.0f;
            for (size_t i = 0; i < per_output; ++i) peak = std::max(peak, std::fabs(own[i]));
            scale_[o] = peak / kWeightLevels;
            inverse = peak > 0.0f ? kWeightLevels / peak : 0.0f;
        }
        uint8_t* block = data_.data() + o / kOutputBlock * block_stride_;
        for (int tap = 0; tap < taps; ++tap) {
            for (int position = 0; position < padded_channels_; ++position) {
                const int channel = channel_at(kernels.arithmetic, position);
                if (channel >= channels) continue;
                const float value = own[static_cast<size_t>(channel) * taps + tap];
                const size_t depth = static_cast<size_t>(tap) * padded_channels_ + position;
                uint8_t* to = block + (depth / per_lane * kOutputBlock + o % kOutputBlock) * kLaneBytes +
                              depth % per_lane * bytes;
                if (integer) {
                    const long level = std::lrint(value * inverse);
                    *to = static_cast<uint8_t>(static_cast<int8_t>(level));
                    sum_[o] += static_cast<int32_t>(level);
                } else if (kernels.arithmetic == Arithmetic::bf16) {
                    const uint16_t half = to_bf16(value);
                    std::memcpy(to, &half, sizeof half);
                } else {
                    std::memcpy(to, &value, sizeof value);
                }
            }
        }
    }
}

}  // namespace maskmill
