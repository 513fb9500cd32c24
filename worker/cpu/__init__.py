"""The CPUs of one node: what there is, how it is divided, which arithmetic suits it, and how a process is held there.

`topology` reads the kernel's files (with `kernel` for the reading and `cgroup` for the limits of containers),
`placement` turns that into core sets (`cores` does the cutting, `reasons` the sentences), `isa` recommends a precision
from the CPU's flags, and `pinning` puts a process on its core set. Nothing here imports OpenVINO or touches a network.
"""
