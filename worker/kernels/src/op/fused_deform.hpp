// The operation as OpenVINO sees it: DeformableConvolution-8 with group 1 and bilinear_interpolation_pad=true, followed
// by a bias and optionally a ReLU.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "../core/deform.hpp"
#include "openvino/op/op.hpp"

namespace maskmill {

// Inputs, all f32: data [N, C, H, W], offsets [N, 2k, OH, OW], weights [O, C, KH, KW] (constant), mask [N, k, OH, OW],
// bias [O] (constant). Output f32 [N, O, OH, OW]; or, with a step, u8 [N, OH, OW, O] for an INT8 reader: value / step,
// rounded to even and limited to 0..255, as FakeQuantize with 256 levels from 0 to 255 * step does.
class FusedDeformableConvolution : public ov::op::Op {
public:
    OPENVINO_OP("FusedDeformableConvolution", "maskmill");

    FusedDeformableConvolution() = default;
    explicit FusedDeformableConvolution(const ov::OutputVector& arguments);

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& arguments) const override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    bool has_evaluate() const override { return true; }
    // The CPU plugin calls this in the arena of the stream, so TBB uses the threads pinned for that stream.
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    // Packed by the first call. All streams of a compiled model share this node, and with it the weights.
    struct Once {
        std::once_flag flag;
        std::unique_ptr<PackedWeights> weights;
    };

    Geometry geometry(const ov::Shape& data, const ov::Shape& weights, const ov::Shape& offsets) const;
    const PackedWeights& packed(const ov::TensorVector& inputs) const;

    std::vector<int64_t> strides_{1, 1};
    std::vector<int64_t> pads_begin_{0, 0};
    std::vector<int64_t> pads_end_{0, 0};
    std::vector<int64_t> dilations_{1, 1};
    std::string arithmetic_ = "f32";
    bool relu_ = false;
    float step_ = 0.0f;  // 0: the output is f32
    std::shared_ptr<Once> once_ = std::make_shared<Once>();
};

}  // namespace maskmill
