"""A wall clock that a test can step: `time.time` of a Python process with this folder on PYTHONPATH.

The variable `STEPPED_CLOCK` names the file with the offset in seconds (see `support.clocks`).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_EVERY = 0.5
"""Seconds between two looks at the file."""

_file, _real = Path(os.environ["STEPPED_CLOCK"]), time.time
_looked, _offset = float("-inf"), 0.0


def _stepped() -> float:
    global _looked, _offset
    now = time.monotonic()
    if now - _looked > _EVERY:
        _looked, _offset = now, float(_file.read_text())
    return _real() + _offset


time.time = _stepped
