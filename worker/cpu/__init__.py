"""The CPUs of one node: topology, core sets, recommended precision, pinning.

    topology   reads the kernel's files, with `kernel` (file access) and `cgroup` (limits of containers)
    placement  divides the node into core sets, with `cores`, `streams`, `memory` and `reasons` (the text of a plan)
    isa        recommends a precision from the flags of the CPU
    pinning    puts a process on its core set

Nothing here imports OpenVINO or uses the network.
"""
