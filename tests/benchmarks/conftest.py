"""Comparisons that need PyTorch are collected only where it is installed: maskmill does not depend on it."""

from __future__ import annotations

import importlib.util

_NEED_TORCH = ["test_birefnet_torch.py", "test_onnx_in_pytorch.py", "test_starter_training.py"]
_HAS_TORCH = importlib.util.find_spec("torch") is not None

collect_ignore = [] if _HAS_TORCH else _NEED_TORCH


def pytest_report_header() -> str:
    """Say which files are left out."""
    return "" if _HAS_TORCH else f"PyTorch is not installed; not collected: {', '.join(_NEED_TORCH)}"
