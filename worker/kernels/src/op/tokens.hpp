// Checks and access that operations on tokens share.
#pragma once

#include <cmath>

#include "../core/attention.hpp"
#include "openvino/op/constant.hpp"
#include "openvino/op/op.hpp"

namespace maskmill {

// Tokens of [..., tokens, channels].
inline size_t count_of(const ov::Shape& tokens) { return tokens[tokens.size() - 2]; }

inline Stored stored_as(const ov::Tensor& tokens) {
    return tokens.get_element_type() == ov::element::f32 ? Stored::f32 : Stored::bf16;
}

inline const void* bytes_of(const ov::Tensor& tokens) {
    if (stored_as(tokens) == Stored::f32) return tokens.data<const float>();
    return tokens.data<const ov::bfloat16>();
}

inline void check_tokens(const ov::Node& node, size_t input) {
    const auto type = node.get_input_element_type(input);
    NODE_VALIDATION_CHECK(&node, type == ov::element::f32 || type == ov::element::bf16, "tokens are f32 or bf16, not ",
                          type);
    const ov::PartialShape& shape = node.get_input_partial_shape(input);
    NODE_VALIDATION_CHECK(&node, shape.is_static() && shape.size() >= 2, "tokens have a static shape, not ", shape);
}

inline void check_constant(const ov::Node& node, size_t input, ov::element::Type expected) {
    const auto type = node.get_input_element_type(input);
    NODE_VALIDATION_CHECK(&node, type == expected, "input ", input, " is ", expected, ", not ", type);
    NODE_VALIDATION_CHECK(&node, ov::is_type<ov::op::v0::Constant>(node.get_input_node_ptr(input)), "input ", input,
                          " must be constant: it is packed once");
}

inline void check_levels(const ov::Node& node, float per_unit, float zero) {
    constexpr float kLargestLevel = 255.0f;
    NODE_VALIDATION_CHECK(&node, std::isfinite(per_unit) && per_unit > 0.0f, "a factor is positive, not ", per_unit);
    NODE_VALIDATION_CHECK(&node, zero >= 0.0f && zero <= kLargestLevel && zero == std::floor(zero),
                          "a zero is a level, not ", zero);
}

}  // namespace maskmill
