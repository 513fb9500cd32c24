// The operation as OpenVINO sees it: everything between the qkv product of a layer and its output projection.
#pragma once

#include <memory>
#include <mutex>

#include "../core/attention.hpp"
#include "openvino/op/op.hpp"

namespace maskmill {

// Inputs: tokens [1, T, 3 * C], f32 or bf16; the token of padding, f32 [3 * C]; the order of the tokens, i32
// [windows, area]; the position bias, f32 [heads, area, area]; and, where windows are masked, the index of the mask of
// each window, i32 [windows], and the masks, f32 [count, area, area]. All but the first are constant: they are packed
// once. Output: levels u8 [1, T, C].
class WindowAttention : public ov::op::Op {
public:
    OPENVINO_OP("WindowAttention", "maskmill");

    WindowAttention() = default;
    explicit WindowAttention(const ov::OutputVector& arguments);

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& arguments) const override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    bool has_evaluate() const override { return true; }
    // The CPU plugin calls this in the arena of the stream, so TBB uses the threads pinned for that stream.
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    // Packed by the first call. All streams of a compiled model share this node, and with it the tables.
    struct Once {
        std::once_flag flag;
        const AttentionKernels* kernels = nullptr;
        std::unique_ptr<PackedAttention> packed;
    };

    AttentionLayer layer() const;
    const Once& packed(const ov::TensorVector& inputs) const;

    float query_per_unit_ = 1.0f, query_zero_ = 0.0f;
    float key_per_unit_ = 1.0f, key_zero_ = 0.0f;
    float output_per_unit_ = 1.0f, output_zero_ = 0.0f;
    float score_per_level_ = 1.0f;
    std::shared_ptr<Once> once_ = std::make_shared<Once>();
};

}  // namespace maskmill
