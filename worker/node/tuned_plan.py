"""What tuning found, kept with what it was found on: another machine or network does not inherit it.

One JSON file in the cache folder, one entry per fingerprint.
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

FILE = "tuned.json"
SCHEMA_VERSION = 1

_UNTUNED = "not tuned for this machine and network: `worker tune` tries layouts and keeps the best"


@dataclass(frozen=True)
class Tuned:
    """The layout that ran best."""

    processes: int
    streams: int
    threads: int
    """In each process, over all streams."""

    precision: str
    """Variant on disk."""

    inference_precision: str
    images_per_second: float
    """Of the whole machine, inference alone."""

    over_default: float
    """Times as fast as the layout that the plan chooses by itself, in the same run."""

    measured_at: str
    """ISO 8601, UTC."""


def fingerprint(topology: Topology, model: ModelSettings) -> dict[str, Any]:
    """What a choice depends on. The network counts by its source and size: finding its digest would fetch it."""
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
        "size": model.size,
    }


def _key(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def save(cache_dir: Path, facts: dict[str, Any], tuned: Tuned) -> Path:
    """Add or replace the entry of a fingerprint; the file changes whole or not at all.

    Raises:
        SetupError: it cannot be written.
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


def find(cache_dir: Path, facts: dict[str, Any]) -> Tuned | None:
    """The entry of a fingerprint."""
    entry = _read(cache_dir.expanduser() / FILE).get(_key(facts))
    return Tuned(**entry["tuned"]) if entry else None


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
class Applied:
    """Settings with what tuning found, where nothing is set by hand."""

    plan: PlanSettings
    model: ModelSettings
    why: str
    set_by: str = "by hand"
    """Who set the numbers of the plan."""


def applied(plan: PlanSettings, model: ModelSettings, tuned: Tuned | None) -> Applied:
    """What to run, and what to say about it."""
    by_hand = [name for name in ("processes", "streams", "threads") if getattr(plan, name) is not None]
    if tuned is None:
        return Applied(plan, model, _UNTUNED)
    if by_hand:
        names = ", ".join(f"MASKMILL_PLAN__{name.upper()}" for name in by_hand)
        return Applied(plan, model, f"what `worker tune` found is not used: {names} set by hand")
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
    return Applied(plan.model_copy(update=changes), model.model_copy(update=chosen), why, "by `worker tune`")


def planned(topology: Topology, plan: PlanSettings, model: ModelSettings) -> Applied:
    """As `applied`, with what was found for this machine and network, and the memory that the network needs."""
    found = applied(plan, model, find(model.cache_dir, fingerprint(topology, model)))
    return replace(found, plan=with_memory(topology, found.plan, found.model))


def with_memory(topology: Topology, plan: PlanSettings, model: ModelSettings) -> PlanSettings:
    """The plan's settings with what the network of the settings needs in memory on this CPU."""
    advice = isa.recommend(topology.flags, topology.memory_bytes)
    precision = advice.precisions[0] if model.precision == "auto" else model.precision
    asked = model.inference_precision
    return memory.with_memory_needs(plan, model, precision, advice.inference_precision if asked == "auto" else asked)
