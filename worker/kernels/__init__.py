"""Native kernels: what OpenVINO computes slowly, as an OpenVINO CPU extension in C++.

    src/core    the modulated deformable convolution: no OpenVINO, no threads of its own
    src/op      the operation as OpenVINO sees it, and the entry points of the shared library
    build       compiles it with CMake against the installed openvino wheel
    library     finds what was built or came with the wheel

Optional everywhere: without the library the network runs on OpenVINO's own operation.
`worker.model.inference.deformable` puts the operation into a graph when it is loaded, so files on disk stay plain
OpenVINO.
"""
