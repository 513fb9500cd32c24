"""The producer side of maskmill: submit images, watch jobs, fetch results.

It stands on `worker.contract` alone, so importing it loads no OpenVINO, NumPy or Pillow.
"""
