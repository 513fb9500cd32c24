"""The producer side of maskmill: submit images, watch jobs, fetch results.

The package imports only `worker.contract`, so it never loads OpenVINO, NumPy or Pillow. `from producer import Client`
gives the Python API, with its types and the errors that it raises. Each public name is imported on first use, so that
the `producer` command starts quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.client import Client as Client
    from producer.download import Downloaded as Downloaded
    from producer.download import Fetched as Fetched
    from producer.estimate import Estimate as Estimate
    from producer.plan import Plan as Plan
    from producer.sources.filters import Filters as Filters
    from producer.sources.list_formats import ListFormat as ListFormat
    from producer.sources.resolve import SourceSpec as SourceSpec
    from producer.sources.units import SampleSize as SampleSize
    from producer.submit import Submitted as Submitted
    from producer.watch import JobSnapshot as JobSnapshot
    from worker.contract.errors import AccessDenied as AccessDenied
    from worker.contract.errors import BrokerUnavailable as BrokerUnavailable
    from worker.contract.errors import ClockSkewed as ClockSkewed
    from worker.contract.errors import ConfirmationNeeded as ConfirmationNeeded
    from worker.contract.errors import ContractError as ContractError
    from worker.contract.errors import CredentialsRefused as CredentialsRefused
    from worker.contract.errors import DigestMismatch as DigestMismatch
    from worker.contract.errors import JobNotFound as JobNotFound
    from worker.contract.errors import JobStateError as JobStateError
    from worker.contract.errors import JobUnreadable as JobUnreadable
    from worker.contract.errors import MaskmillError as MaskmillError
    from worker.contract.errors import NotificationFailed as NotificationFailed
    from worker.contract.errors import ObjectMissing as ObjectMissing
    from worker.contract.errors import OutputCollision as OutputCollision
    from worker.contract.errors import QuotaExceeded as QuotaExceeded
    from worker.contract.errors import RecordDamaged as RecordDamaged
    from worker.contract.errors import ServiceError as ServiceError
    from worker.contract.errors import SettingsError as SettingsError
    from worker.contract.errors import SetupError as SetupError
    from worker.contract.errors import SourceError as SourceError
    from worker.contract.errors import StoreUnavailable as StoreUnavailable
    from worker.contract.job import JobStatus as JobStatus
    from worker.contract.job import JobView as JobView
    from worker.contract.messages import JobPolicy as JobPolicy
    from worker.contract.messages import MaskQuality as MaskQuality
    from worker.contract.messages import Outcome as Outcome
    from worker.contract.messages import OutcomeKind as OutcomeKind
    from worker.contract.messages import Priority as Priority
    from worker.contract.outputs import ExifPolicy as ExifPolicy
    from worker.contract.outputs import ImageFormat as ImageFormat
    from worker.contract.outputs import OutputKind as OutputKind
    from worker.contract.outputs import OutputOptions as OutputOptions
    from worker.contract.settings import Settings as Settings

__all__ = [
    "AccessDenied",
    "BrokerUnavailable",
    "Client",
    "ClockSkewed",
    "ConfirmationNeeded",
    "ContractError",
    "CredentialsRefused",
    "DigestMismatch",
    "Downloaded",
    "Estimate",
    "ExifPolicy",
    "Fetched",
    "Filters",
    "ImageFormat",
    "JobNotFound",
    "JobPolicy",
    "JobSnapshot",
    "JobStateError",
    "JobStatus",
    "JobUnreadable",
    "JobView",
    "ListFormat",
    "MaskQuality",
    "MaskmillError",
    "NotificationFailed",
    "ObjectMissing",
    "Outcome",
    "OutcomeKind",
    "OutputCollision",
    "OutputKind",
    "OutputOptions",
    "Plan",
    "Priority",
    "QuotaExceeded",
    "RecordDamaged",
    "SampleSize",
    "ServiceError",
    "Settings",
    "SettingsError",
    "SetupError",
    "SourceError",
    "SourceSpec",
    "StoreUnavailable",
    "Submitted",
]

_PUBLIC_NAMES = {
    "AccessDenied": "worker.contract.errors",
    "BrokerUnavailable": "worker.contract.errors",
    "ClockSkewed": "worker.contract.errors",
    "Client": "producer.client",
    "ConfirmationNeeded": "worker.contract.errors",
    "ContractError": "worker.contract.errors",
    "CredentialsRefused": "worker.contract.errors",
    "DigestMismatch": "worker.contract.errors",
    "Downloaded": "producer.download",
    "Estimate": "producer.estimate",
    "ExifPolicy": "worker.contract.outputs",
    "Fetched": "producer.download",
    "Filters": "producer.sources.filters",
    "ImageFormat": "worker.contract.outputs",
    "JobNotFound": "worker.contract.errors",
    "JobPolicy": "worker.contract.messages",
    "JobSnapshot": "producer.watch",
    "JobStateError": "worker.contract.errors",
    "JobUnreadable": "worker.contract.errors",
    "JobStatus": "worker.contract.job",
    "JobView": "worker.contract.job",
    "ListFormat": "producer.sources.list_formats",
    "MaskQuality": "worker.contract.messages",
    "MaskmillError": "worker.contract.errors",
    "NotificationFailed": "worker.contract.errors",
    "ObjectMissing": "worker.contract.errors",
    "Outcome": "worker.contract.messages",
    "OutcomeKind": "worker.contract.messages",
    "OutputCollision": "worker.contract.errors",
    "QuotaExceeded": "worker.contract.errors",
    "RecordDamaged": "worker.contract.errors",
    "OutputKind": "worker.contract.outputs",
    "OutputOptions": "worker.contract.outputs",
    "Plan": "producer.plan",
    "Priority": "worker.contract.messages",
    "SampleSize": "producer.sources.units",
    "ServiceError": "worker.contract.errors",
    "Settings": "worker.contract.settings",
    "SettingsError": "worker.contract.errors",
    "SetupError": "worker.contract.errors",
    "SourceError": "worker.contract.errors",
    "SourceSpec": "producer.sources.resolve",
    "StoreUnavailable": "worker.contract.errors",
    "Submitted": "producer.submit",
}
"""Public name -> the module that defines it."""


if not TYPE_CHECKING:  # with it, type checkers would accept every name

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC_NAMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_PUBLIC_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC_NAMES})
