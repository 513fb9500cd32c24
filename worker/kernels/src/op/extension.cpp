// Entry points of the shared library: the operation for OpenVINO, and the name of the kernel for Python.
#include "openvino/core/extension.hpp"

#include "fused_deform.hpp"
#include "names.hpp"
#include "openvino/core/op_extension.hpp"

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>{
    std::make_shared<ov::OpExtension<maskmill::FusedDeformableConvolution>>()})

// Returns the name of the inner loops that this CPU would run in an arithmetic; null if it supports none.
extern "C" __attribute__((visibility("default"))) const char* maskmill_kernel(const char* arithmetic) {
    maskmill::Arithmetic wanted;
    if (!maskmill::arithmetic_of(arithmetic, wanted)) return nullptr;
    const maskmill::Kernels* kernels = maskmill::choose(wanted);
    return kernels == nullptr ? nullptr : kernels->name;
}
