#include "layer_norm.hpp"

#include <cmath>

#include "openvino/op/constant.hpp"
#include "tbb.hpp"
#include "tokens.hpp"

namespace maskmill {

namespace {

enum Input : size_t { kTokens, kGamma, kBeta, kInputs };

}  // namespace

LayerNorm::LayerNorm(const ov::OutputVector& arguments) : Op(arguments) { constructor_validate_and_infer_types(); }

void LayerNorm::validate_and_infer_types() {
    NODE_VALIDATION_CHECK(this, get_input_size() == kInputs, "tokens, gamma and beta are expected");
    NODE_VALIDATION_CHECK(this, std::isfinite(epsilon_) && epsilon_ > 0.0f, "epsilon is positive, not ", epsilon_);
    check_levels(*this, per_unit_, zero_);
    check_tokens(*this, kTokens);
    const ov::Shape tokens = get_input_shape(kTokens);
    const size_t channels = tokens.back();
    NODE_VALIDATION_CHECK(this, channels > 0 && channels % kNormChannels == 0, "channels are multiples of ",
                          kNormChannels, ", not ", channels);
    NODE_VALIDATION_CHECK(this, count_of(tokens) * channels == ov::shape_size(tokens), "one batch is expected");
    for (const size_t i : {kGamma, kBeta}) {
        check_constant(*this, i, ov::element::f32);
        NODE_VALIDATION_CHECK(this, get_input_shape(i) == ov::Shape{channels}, "input ", i, " has one value a channel");
    }
    set_output_type(0, ov::element::u8, ov::Shape{1, count_of(tokens), channels});
}

std::shared_ptr<ov::Node> LayerNorm::clone_with_new_inputs(const ov::OutputVector& arguments) const {
    auto copy = std::make_shared<LayerNorm>();
    copy->epsilon_ = epsilon_;
    copy->per_unit_ = per_unit_;
    copy->zero_ = zero_;
    copy->set_arguments(arguments);
    copy->constructor_validate_and_infer_types();
    return copy;
}

bool LayerNorm::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("epsilon", epsilon_);
    visitor.on_attribute("per_unit", per_unit_);
    visitor.on_attribute("zero", zero_);
    return true;
}

bool LayerNorm::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    outputs[0].set_shape(get_output_shape(0));
    const ov::Shape shape = inputs[kTokens].get_shape();
    std::call_once(once_->flag, [&] {
        OPENVINO_ASSERT(normalises_here(), "this CPU has no kernel for layer norm: it has no AVX-512");
        once_->packed =
            std::make_unique<PackedNorm>(inputs[kGamma].data<const float>(), inputs[kBeta].data<const float>(),
                                         static_cast<int>(shape.back()), epsilon_, Levels{per_unit_, zero_});
    });
    normalise(*once_->packed, bytes_of(inputs[kTokens]), stored_as(inputs[kTokens]), static_cast<int>(count_of(shape)),
              outputs[0].data<uint8_t>(), Tbb());
    return true;
}

}  // namespace maskmill
