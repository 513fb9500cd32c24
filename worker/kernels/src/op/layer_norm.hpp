// The operation as OpenVINO sees it: a layer norm and the quantisation of its only reader.
#pragma once

#include <memory>
#include <mutex>

#include "../core/layer_norm.hpp"
#include "openvino/op/op.hpp"

namespace maskmill {

// Inputs: tokens [..., T, C], f32 or bf16, other axes 1; gamma and beta, f32 [C], constant: they are packed once.
// Output: levels u8 [1, T, C].
class LayerNorm : public ov::op::Op {
public:
    OPENVINO_OP("LayerNorm", "maskmill");

    LayerNorm() = default;
    explicit LayerNorm(const ov::OutputVector& arguments);

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& arguments) const override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    bool has_evaluate() const override { return true; }
    // The CPU plugin calls this in the arena of the stream, so TBB uses the threads pinned for that stream.
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    // Packed by the first call. All streams of a compiled model share this node.
    struct Once {
        std::once_flag flag;
        std::unique_ptr<PackedNorm> packed;
    };

    float epsilon_ = 1e-5f;
    float per_unit_ = 1.0f, zero_ = 0.0f;
    std::shared_ptr<Once> once_ = std::make_shared<Once>();
};

}  // namespace maskmill
