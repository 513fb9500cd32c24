"""Inference with OpenVINO.

    runtime         OpenVINO, imported on the CPUs of this process
    graph           an IR with its pre- and post-processing in the graph
    native          operations replaced by the native kernels
    compiled_cache  the cache of compiled models
    engine          the compiled model, used by several threads

No other part of the worker uses OpenVINO at run time.
"""
