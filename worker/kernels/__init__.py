"""Native kernels for operations that are slow in OpenVINO, as an OpenVINO CPU extension in C++.

    src/core    modulated deformable convolution, layer norm and window attention, without OpenVINO and own threads
    src/op      the operations as OpenVINO sees them, and the entry points of the shared library
    build       compiles the library with CMake against the installed openvino wheel
    library     finds a library that was built here or shipped with the wheel

The kernels are optional: without the library the network runs on OpenVINO's own operations.
`worker.model.inference.native` puts the operations into a graph when a model is loaded, so model files stay plain
OpenVINO.
"""
