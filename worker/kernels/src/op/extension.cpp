// Entry points of the shared library: the operations for OpenVINO, and the names of the kernels for Python.
#include "openvino/core/extension.hpp"

#include "fused_deform.hpp"
#include "layer_norm.hpp"
#include "names.hpp"
#include "openvino/core/op_extension.hpp"
#include "window_attention.hpp"

namespace {

std::vector<ov::Extension::Ptr> operations() {
    return {std::make_shared<ov::OpExtension<maskmill::FusedDeformableConvolution>>(),
            std::make_shared<ov::OpExtension<maskmill::LayerNorm>>(),
            std::make_shared<ov::OpExtension<maskmill::WindowAttention>>()};
}

}  // namespace

OPENVINO_CREATE_EXTENSIONS(operations())

// Returns the name of the inner loops that this CPU would run in an arithmetic; null if it supports none.
extern "C" __attribute__((visibility("default"))) const char* maskmill_kernel(const char* arithmetic) {
    maskmill::Arithmetic wanted;
    if (!maskmill::arithmetic_of(arithmetic, wanted)) return nullptr;
    const maskmill::Kernels* kernels = maskmill::choose(wanted);
    return kernels == nullptr ? nullptr : kernels->name;
}

// Returns the name of the inner loops of window attention that this CPU would run; null if it has none.
extern "C" __attribute__((visibility("default"))) const char* maskmill_attention(const char* floats) {
    maskmill::Arithmetic wanted;
    if (!maskmill::arithmetic_of(floats, wanted)) return nullptr;
    const bool is_bf16 = wanted == maskmill::Arithmetic::bf16;
    const auto* kernels = maskmill::choose_attention(is_bf16 ? maskmill::Stored::bf16 : maskmill::Stored::f32);
    return kernels == nullptr ? nullptr : kernels->name;
}

// Returns whether this CPU would run layer norm.
extern "C" __attribute__((visibility("default"))) int maskmill_layer_norm() { return maskmill::normalises_here(); }
