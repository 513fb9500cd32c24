"""The stages of an image, as metrics, outcomes, benchmarks and reports name them."""

from enum import StrEnum


class Stage(StrEnum):
    """One stage of processing an image, in order."""

    CHECK = "check"
    """Check whether its outputs are up to date."""
    FETCH = "fetch"
    DECODE = "decode"
    PREPARE = "prepare"
    """Resize to the network's input."""
    INFER = "infer"
    """Run the network; includes the wait for an idle inference request."""
    RENDER = "render"
    """Scale the mask to full size, compose and encode."""
    HOLD = "hold"
    """Wait, as an image that was started ahead, until this worker owns its chunk. Not observed for other images."""
    STORE = "store"
    RECORD = "record"
    """Write the outcome to the ledger."""
