"""The producer side of maskmill: submit images, watch jobs, fetch results.

The package imports only `worker.contract`, so it never loads OpenVINO, NumPy or Pillow. `from producer import Client`
gives the Python API. Each public name is imported on first use, so that the `producer` command starts quickly.
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

_PUBLIC_NAMES = {
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
"""Public name -> the module that defines it."""


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC_NAMES})
