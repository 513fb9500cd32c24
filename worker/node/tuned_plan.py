"""Store the results of `worker tune` and apply them to the settings.

A result is stored with a fingerprint of the machine and the network, and applies only to the same fingerprint. The
cache folder holds one JSON file with one entry per fingerprint.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from worker.contract.errors import SetupError
from worker.contract.settings import ModelSettings, PlanSettings
from worker.cpu import isa, memory
from worker.cpu.kernel import format_cpu_list
from worker.cpu.topology import Topology
from worker.model.sources.measured import measured_peak

FILE = "tuned.json"
SCHEMA_VERSION = 1

_UNTUNED = "not tuned for this machine and network: `worker tune` measures layouts and keeps the fastest"


@dataclass(frozen=True)
class TunedLayout:
    """The fastest measured layout."""

    processes: int
    streams: int
    threads: int
    """Threads per process, over all streams."""

    precision: str
    """Variant on disk."""

    inference_precision: str
    images_per_second: float
    """Inference throughput of the whole machine, without decoding, encoding and S3."""

    over_default: float
    """Throughput divided by that of the default layout in the same run."""

    measured_at: str
    """Time of measurement, ISO 8601 in UTC."""


def fingerprint(topology: Topology, model: ModelSettings) -> dict[str, Any]:
    """Return what a result depends on: the machine, OpenVINO and the network.

    The network is identified by source, name and size, because computing its digest would require a download.
    """
    flags = hashlib.sha256(" ".join(sorted(topology.flags)).encode()).hexdigest()[:16]
    return {
        "cpu": topology.model_name,
        "flags": flags,
        "cpus": format_cpu_list(topology.usable),
        "quota_cpus": topology.quota_cpus,
        "memory_gib": round(topology.memory_bytes / 2**30),
        "openvino": importlib.metadata.version("openvino"),
        "source": model.source,
        "name": model.name,
        "size": model.size and model.size.as_json(),
    }


def _key(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def save(cache_dir: Path, facts: dict[str, Any], tuned: TunedLayout) -> Path:
    """Add or replace the entry of a fingerprint, by atomic rename.

    Returns:
        The path of the file.

    Raises:
        SetupError: the file cannot be written.
    """
    path = cache_dir.expanduser() / FILE
    entries = _read(path)
    entries[_key(facts)] = {"for": facts, "tuned": asdict(tuned)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            json.dump({"schema_version": SCHEMA_VERSION, "entries": entries}, file, indent=1)
        Path(file.name).replace(path)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror}; set MASKMILL_MODEL__CACHE_DIR") from error
    return path


def find(cache_dir: Path, facts: dict[str, Any]) -> TunedLayout | None:
    """Return the entry of a fingerprint; None if there is none.

    Raises:
        SetupError: the file cannot be read.
    """
    entry = _read(cache_dir.expanduser() / FILE).get(_key(facts))
    return TunedLayout(**entry["tuned"]) if entry else None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise SetupError(f"{path} cannot be read ({error}): remove it and run `worker tune` again") from error
    if content.get("schema_version") != SCHEMA_VERSION:
        return {}
    entries: dict[str, Any] = content["entries"]
    return entries


@dataclass(frozen=True)
class TunedSettings:
    """Settings after applying a tuned layout."""

    plan: PlanSettings
    model: ModelSettings
    why: str
    set_by: str = "by hand"
    """The origin of the numbers in the plan, for messages."""


def apply(plan: PlanSettings, model: ModelSettings, tuned: TunedLayout | None) -> TunedSettings:
    """Apply a tuned layout to the settings, with the reason to show. Values set by hand take precedence."""
    by_hand = [name for name in ("processes", "streams", "threads") if getattr(plan, name) is not None]
    if tuned is None:
        return TunedSettings(plan, model, _UNTUNED)
    if by_hand:
        names = ", ".join(f"MASKMILL_PLAN__{name.upper()}" for name in by_hand)
        return TunedSettings(plan, model, f"the result of `worker tune` is not used: {names} set by hand")
    changes = {"processes": tuned.processes, "streams": tuned.streams, "threads": tuned.threads}
    chosen = {
        name: getattr(tuned, name)
        for name in ("precision", "inference_precision")
        if getattr(model, name) == "auto" and getattr(tuned, name)
    }
    why = (
        f"layout from `worker tune` of {tuned.measured_at}: {tuned.images_per_second:.2f} images/s of inference, "
        f"{tuned.over_default:.2f} x the default layout"
    )
    return TunedSettings(plan.model_copy(update=changes), model.model_copy(update=chosen), why, "by `worker tune`")


def tuned_settings(topology: Topology, plan: PlanSettings, model: ModelSettings) -> TunedSettings:
    """Apply the stored result for this machine and network, and fill in the memory that the network needs.

    Raises:
        SetupError: the file of results cannot be read.
    """
    found = apply(plan, model, find(model.cache_dir, fingerprint(topology, model)))
    return replace(found, plan=with_memory(topology, found.plan, found.model))


def with_memory(topology: Topology, plan: PlanSettings, model: ModelSettings) -> PlanSettings:
    """Return the plan settings with the memory that the network needs on this CPU, unless set by hand."""
    advice = isa.recommend(topology.flags, topology.memory_bytes)
    precision = advice.precisions[0] if model.precision == "auto" else model.precision
    asked = model.inference_precision
    arithmetic = advice.inference_precision if asked == "auto" else asked
    measured = measured_peak(model, advice.precisions, arithmetic)
    return memory.with_memory_needs(plan, model, precision, arithmetic, measured)
