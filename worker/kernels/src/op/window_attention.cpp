#include "window_attention.hpp"

#include "tbb.hpp"
#include "tokens.hpp"

namespace maskmill {

namespace {

enum Input : size_t { kTokens, kPadding, kOrder, kBias, kUnmasked, kKinds = kUnmasked, kMasks, kMasked };

}  // namespace

WindowAttention::WindowAttention(const ov::OutputVector& arguments) : Op(arguments) {
    constructor_validate_and_infer_types();
}

void WindowAttention::validate_and_infer_types() {
    const size_t count = get_input_size();
    NODE_VALIDATION_CHECK(this, count == kUnmasked || count == kMasked,
                          "tokens, padding, order and bias are expected, and kinds and masks or neither");
    check_levels(*this, query_per_unit_, query_zero_);
    check_levels(*this, key_per_unit_, key_zero_);
    check_levels(*this, output_per_unit_, output_zero_);
    check_levels(*this, score_per_level_, 0.0f);
    check_tokens(*this, kTokens);
    for (size_t i = kPadding; i < count; ++i) {
        check_constant(*this, i, i == kOrder || i == kKinds ? ov::element::i32 : ov::element::f32);
    }
    const ov::Shape tokens = get_input_shape(kTokens), order = get_input_shape(kOrder), bias = get_input_shape(kBias);
    NODE_VALIDATION_CHECK(this, order.size() == 2 && bias.size() == 3, "unexpected ranks");
    const size_t channels = bias[0] * kHeadWidth, area = order[1];
    NODE_VALIDATION_CHECK(this, count_of(tokens) * 3 * channels == ov::shape_size(tokens) && channels > 0,
                          "heads have ", kHeadWidth, " channels each, tokens are ", tokens);
    NODE_VALIDATION_CHECK(this, get_input_shape(kPadding) == ov::Shape{3 * channels}, "unexpected token of padding");
    NODE_VALIDATION_CHECK(this, area > 0 && bias == ov::Shape({bias[0], area, area}), "unexpected bias ", bias);
    if (count == kMasked) {
        const ov::Shape masks = get_input_shape(kMasks);
        NODE_VALIDATION_CHECK(this, get_input_shape(kKinds) == ov::Shape{order[0]}, "one kind per window is expected");
        NODE_VALIDATION_CHECK(this, masks.size() == 3 && masks == ov::Shape({masks[0], area, area}),
                              "unexpected masks ", masks);
    }
    set_output_type(0, ov::element::u8, ov::Shape{1, count_of(tokens), channels});
}

std::shared_ptr<ov::Node> WindowAttention::clone_with_new_inputs(const ov::OutputVector& arguments) const {
    auto copy = std::make_shared<WindowAttention>();
    copy->query_per_unit_ = query_per_unit_;
    copy->query_zero_ = query_zero_;
    copy->key_per_unit_ = key_per_unit_;
    copy->key_zero_ = key_zero_;
    copy->output_per_unit_ = output_per_unit_;
    copy->output_zero_ = output_zero_;
    copy->score_per_level_ = score_per_level_;
    copy->set_arguments(arguments);
    copy->constructor_validate_and_infer_types();
    return copy;
}

bool WindowAttention::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("query_per_unit", query_per_unit_);
    visitor.on_attribute("query_zero", query_zero_);
    visitor.on_attribute("key_per_unit", key_per_unit_);
    visitor.on_attribute("key_zero", key_zero_);
    visitor.on_attribute("output_per_unit", output_per_unit_);
    visitor.on_attribute("output_zero", output_zero_);
    visitor.on_attribute("score_per_level", score_per_level_);
    return true;
}

AttentionLayer WindowAttention::layer() const {
    AttentionLayer layer;
    layer.tokens = static_cast<int>(count_of(get_input_shape(kTokens)));
    layer.windows = static_cast<int>(get_input_shape(kOrder)[0]);
    layer.area = static_cast<int>(get_input_shape(kOrder)[1]);
    layer.heads = static_cast<int>(get_input_shape(kBias)[0]);
    layer.query = {query_per_unit_, query_zero_};
    layer.key = {key_per_unit_, key_zero_};
    layer.output = {output_per_unit_, output_zero_};
    layer.score_per_level = score_per_level_;
    return layer;
}

const WindowAttention::Once& WindowAttention::packed(const ov::TensorVector& inputs) const {
    std::call_once(once_->flag, [&] {
        const Stored stored = stored_as(inputs[kTokens]);
        once_->kernels = choose_attention(stored);
        OPENVINO_ASSERT(once_->kernels != nullptr, "this CPU has no kernel for window attention: it has no VNNI");
        AttentionTables tables;
        tables.padding = inputs[kPadding].data<const float>();
        tables.order = inputs[kOrder].data<const int32_t>();
        tables.bias = inputs[kBias].data<const float>();
        if (inputs.size() == kMasked) {
            tables.kinds = inputs[kKinds].data<const int32_t>();
            tables.masks = inputs[kMasks].data<const float>();
            tables.masks_count = static_cast<int>(inputs[kMasks].get_shape()[0]);
        }
        once_->packed = std::make_unique<PackedAttention>(layer(), tables, stored);
    });
    return *once_;
}

bool WindowAttention::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    outputs[0].set_shape(get_output_shape(0));
    const Once& once = packed(inputs);
    attend(*once.packed, *once.kernels, bytes_of(inputs[kTokens]), outputs[0].data<uint8_t>(), Tbb());
    return true;
}

}  // namespace maskmill
