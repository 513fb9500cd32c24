"""The worker side of maskmill, and in `worker.contract` what producer and worker agree on.

This package root imports nothing, so that `worker.contract` costs a producer no OpenVINO, NumPy or Pillow.
"""
