"""Inference with OpenVINO: the graph that runs, the compiled model, its cache and native operations.

The only users of OpenVINO at run time.
"""
