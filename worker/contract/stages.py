"""The names of what happens to an image, in metrics, outcomes, benchmarks and reports."""

from enum import StrEnum


class Stage(StrEnum):
    """What happens to an image, in order."""

    CHECK = "check"
    """Are its outputs up to date?"""
    FETCH = "fetch"
    DECODE = "decode"
    PREPARE = "prepare"
    """Resize to the network's input."""
    INFER = "infer"
    """Waiting for an idle request included."""
    RENDER = "render"
    """Mask to full size, compose, encode."""
    HOLD = "hold"
    """Begun ahead: waiting for its chunk to be ours. Not observed for images that were not."""
    STORE = "store"
    RECORD = "record"
    """Tell the ledger."""
