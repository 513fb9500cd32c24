#include "fused_deform.hpp"

#include <cmath>

#include "names.hpp"
#include "openvino/op/constant.hpp"
#include "tbb.hpp"

namespace maskmill {

namespace {

enum Input : size_t { kData, kOffsets, kWeights, kMask, kBias, kInputs };

}  // namespace

FusedDeformableConvolution::FusedDeformableConvolution(const ov::OutputVector& arguments) : Op(arguments) {
    constructor_validate_and_infer_types();
}

Geometry FusedDeformableConvolution::geometry(const ov::Shape& data, const ov::Shape& weights,
                                              const ov::Shape& offsets) const {
    Geometry g;
    g.batch = static_cast<int>(data[0]);
    g.channels = static_cast<int>(data[1]);
    g.height = static_cast<int>(data[2]);
    g.width = static_cast<int>(data[3]);
    g.outputs = static_cast<int>(weights[0]);
    g.kernel_h = static_cast<int>(weights[2]);
    g.kernel_w = static_cast<int>(weights[3]);
    g.out_height = static_cast<int>(offsets[2]);
    g.out_width = static_cast<int>(offsets[3]);
    g.stride_h = static_cast<int>(strides_[0]);
    g.stride_w = static_cast<int>(strides_[1]);
    g.pad_top = static_cast<int>(pads_begin_[0]);
    g.pad_left = static_cast<int>(pads_begin_[1]);
    g.dilation_h = static_cast<int>(dilations_[0]);
    g.dilation_w = static_cast<int>(dilations_[1]);
    return g;
}

void FusedDeformableConvolution::validate_and_infer_types() {
    NODE_VALIDATION_CHECK(this, get_input_size() == kInputs, "data, offsets, weights, mask and bias are expected");
    for (const auto* pair : {&strides_, &pads_begin_, &pads_end_, &dilations_}) {
        NODE_VALIDATION_CHECK(this, pair->size() == 2, "strides, pads and dilations have one value per axis");
    }
    Arithmetic unused;
    NODE_VALIDATION_CHECK(this, arithmetic_of(arithmetic_.c_str(), unused), "arithmetic is f32, bf16 or i8, not ",
                          arithmetic_);
    NODE_VALIDATION_CHECK(this, std::isfinite(step_) && step_ >= 0.0f, "step is not negative, not ", step_);
    NODE_VALIDATION_CHECK(this, step_ == 0.0f || arithmetic_ == "i8", "a step needs arithmetic i8, not ", arithmetic_);
    for (size_t i = 0; i < kInputs; ++i) {
        NODE_VALIDATION_CHECK(this, get_input_element_type(i) == ov::element::f32, "input ", i, " must be f32");
        NODE_VALIDATION_CHECK(this, get_input_partial_shape(i).is_static(), "input ", i, " must have a static shape");
    }
    const ov::Shape data = get_input_shape(kData), offsets = get_input_shape(kOffsets);
    const ov::Shape weights = get_input_shape(kWeights), mask = get_input_shape(kMask);
    NODE_VALIDATION_CHECK(this, data.size() == 4 && weights.size() == 4, "data and weights have four axes");
    ov::Shape expected{data[0], weights[0], 0, 0};
    for (size_t axis = 0; axis < 2; ++axis) {
        NODE_VALIDATION_CHECK(this, strides_[axis] > 0 && dilations_[axis] > 0, "strides and dilations are positive");
        NODE_VALIDATION_CHECK(this, data[axis + 2] > 0 && weights[axis + 2] > 0, "an axis of size zero");
        const int64_t reach = dilations_[axis] * (static_cast<int64_t>(weights[axis + 2]) - 1) + 1;
        const int64_t room = static_cast<int64_t>(data[axis + 2]) + pads_begin_[axis] + pads_end_[axis] - reach;
        NODE_VALIDATION_CHECK(this, room >= 0, "the kernel is larger than the padded map");
        expected[axis + 2] = static_cast<size_t>(room / strides_[axis] + 1);
    }
    const size_t taps = weights[2] * weights[3];
    NODE_VALIDATION_CHECK(this, weights[1] == data[1], "weights for ", weights[1], " channels, data has ", data[1]);
    NODE_VALIDATION_CHECK(this, offsets == ov::Shape({data[0], 2 * taps, expected[2], expected[3]}),
                          "unexpected shape of offsets ", offsets);
    NODE_VALIDATION_CHECK(this, mask == ov::Shape({data[0], taps, expected[2], expected[3]}),
                          "unexpected shape of the mask ", mask);
    NODE_VALIDATION_CHECK(this, get_input_shape(kBias) == ov::Shape{weights[0]}, "one bias per output is expected");
    for (const size_t i : {kWeights, kBias}) {
        NODE_VALIDATION_CHECK(this, ov::is_type<ov::op::v0::Constant>(get_input_node_ptr(i)), "input ", i,
                              " must be constant: it is packed once");
    }
    if (step_ > 0.0f) {
        set_output_type(0, ov::element::u8, ov::Shape{expected[0], expected[2], expected[3], expected[1]});
    } else {
        set_output_type(0, ov::element::f32, expected);
    }
}

std::shared_ptr<ov::Node> FusedDeformableConvolution::clone_with_new_inputs(const ov::OutputVector& arguments) const {
    auto copy = std::make_shared<FusedDeformableConvolution>();
    copy->strides_ = strides_;
    copy->pads_begin_ = pads_begin_;
    copy->pads_end_ = pads_end_;
    copy->dilations_ = dilations_;
    copy->arithmetic_ = arithmetic_;
    copy->relu_ = relu_;
    copy->step_ = step_;
    copy->set_arguments(arguments);
    copy->constructor_validate_and_infer_types();
    return copy;
}

bool FusedDeformableConvolution::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("strides", strides_);
    visitor.on_attribute("pads_begin", pads_begin_);
    visitor.on_attribute("pads_end", pads_end_);
    visitor.on_attribute("dilations", dilations_);
    visitor.on_attribute("arithmetic", arithmetic_);
    visitor.on_attribute("relu", relu_);
    visitor.on_attribute("step", step_);
    return true;
}

const PackedWeights& FusedDeformableConvolution::packed(const ov::TensorVector& inputs) const {
    std::call_once(once_->flag, [&] {
        Arithmetic arithmetic = Arithmetic::f32;
        arithmetic_of(arithmetic_.c_str(), arithmetic);
        const Kernels* kernels = choose(arithmetic);
        OPENVINO_ASSERT(kernels != nullptr, "this CPU has no kernel for deformable convolution in ", arithmetic_);
        const ov::Shape& shape = inputs[kWeights].get_shape();
        once_->weights = std::make_unique<PackedWeights>(
            *kernels, inputs[kWeights].data<const float>(), inputs[kBias].data<const float>(),
            static_cast<int>(shape[0]), static_cast<int>(shape[1]), static_cast<int>(shape[2] * shape[3]));
    });
    return *once_->weights;
}

bool FusedDeformableConvolution::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    outputs[0].set_shape(get_output_shape(0));
    Maps maps;
    maps.data = inputs[kData].data<const float>();
    maps.offsets = inputs[kOffsets].data<const float>();
    maps.mask = inputs[kMask].data<const float>();
    if (step_ > 0.0f) {
        maps.levels = outputs[0].data<uint8_t>();
        maps.step = step_;
    } else {
        maps.output = outputs[0].data<float>();
    }
    const Geometry sizes =
        geometry(inputs[kData].get_shape(), inputs[kWeights].get_shape(), inputs[kOffsets].get_shape());
    deform(sizes, maps, packed(inputs), relu_, Tbb());
    return true;
}

}  // namespace maskmill
