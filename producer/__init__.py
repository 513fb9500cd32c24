"""The producer side of maskmill: submit images, watch jobs, fetch results.

It stands on `worker.contract` alone, so importing it loads no OpenVINO, NumPy or Pillow. `from producer import Client`
is the Python API; the names are loaded when they are asked for, so that the command need not wait for all of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.client import Client as Client
    from producer.sources.filters import Filters as Filters
    from producer.sources.resolve import SourceSpec as SourceSpec
    from producer.submit import Submitted as Submitted
    from worker.contract.job import JobStatus as JobStatus
    from worker.contract.job import JobView as JobView
    from worker.contract.messages import JobPolicy as JobPolicy
    from worker.contract.messages import Outcome as Outcome
    from worker.contract.messages import OutcomeKind as OutcomeKind
    from worker.contract.outputs import OutputOptions as OutputOptions

_PLACES = {
    "Client": "producer.client",
    "Filters": "producer.sources.filters",
    "JobPolicy": "worker.contract.messages",
    "JobStatus": "worker.contract.job",
    "JobView": "worker.contract.job",
    "Outcome": "worker.contract.messages",
    "OutcomeKind": "worker.contract.messages",
    "OutputOptions": "worker.contract.outputs",
    "SourceSpec": "producer.sources.resolve",
    "Submitted": "producer.submit",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
