"""Native kernels for an operation that is slow in OpenVINO, as an OpenVINO CPU extension in C++.

    src/core    the modulated deformable convolution, without OpenVINO and without own threads
    src/op      the operation as OpenVINO sees it, and the entry points of the shared library
    build       compiles the library with CMake against the installed openvino wheel
    library     finds a library that was built here or shipped with the wheel

The kernels are optional: without the library the network runs on OpenVINO's own operation.
`worker.model.inference.deformable` inserts the operation into a graph when a model is loaded, so model files stay plain
OpenVINO.
"""
