"""The worker of maskmill and, in `worker.contract`, what producer and worker share.

This package root imports nothing. A producer can import `worker.contract` without loading OpenVINO, NumPy or Pillow.
"""
