"""The compiled network: u8 pixels in, u8 grey levels out, from several threads at once.

Importing this module imports OpenVINO. Only the child process that runs the network may do so, after its CPU mask is
set; a Celery parent never (see `worker.model.inference.runtime`).

    image threads --infer--> streams + 1 idle requests --start_async--> streams of the CPU plugin

One request more than there are streams keeps every stream busy while a finished image is handed over.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from worker.contract.errors import BundleError, InferenceFailed, PlacementError
from worker.contract.log_fields import event
from worker.model.format.variant import Variant
from worker.model.inference import compiled_cache, deformable
from worker.model.inference.graph import Prepared, prepare
from worker.model.inference.runtime import check_placement, compile_key, core, ov, stray_threads

log = logging.getLogger(__name__)

FloatPrecision = Literal["f32", "bf16", "f16"]
"""Arithmetic of the float part of the network; always asked for explicitly, as the plugin's default varies by CPU."""

_CAPABILITY = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
_NOT_EXECUTED = frozenset({"Const", "Input", "Output"})


@dataclass(frozen=True)
class _Facts:
    """What is known from loading."""

    variant: Variant
    prepared: Prepared
    streams: int
    threads: int
    requested: str
    compiled: str
    device: str
    seconds: float
    notes: tuple[str, ...]
    deformable: deformable.Replacement


class Engine:
    """A network on this process's CPUs. `infer` is thread-safe. Use as a context manager, or `close` it."""

    def __init__(self, compiled: Any, facts: _Facts) -> None:
        """Not for callers: use `load`."""
        self._compiled = compiled
        self._facts = facts
        # None among the requests means closed; it is put back by whoever takes it.
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self.requests):
            self._idle.put(compiled.create_infer_request())

    @classmethod
    def load(
        cls,
        variant: Variant,
        *,
        streams: int,
        threads: int,
        inference_precision: FloatPrecision,
        cache_dir: Path | None = None,
        kernels: deformable.Mode = "auto",
    ) -> Engine:
        """Compile a verified variant for the CPUs of this process.

        Args:
            variant: from `worker.model.sources.bundles.locate`, which verified its files.
            streams: images computed side by side.
            threads: in all streams together; at most the CPUs of the affinity mask.
            inference_precision: of the float part. What this CPU lacks is replaced by the plugin; `describe` and the
                log say so.
            cache_dir: for compiled models, so that the next start is quicker; None: no cache.
            kernels: whether the native deformable convolution may run in place of OpenVINO's.

        Raises:
            PlacementError: the CPUs seen are not those of the mask, or too few for what is asked.
            BundleError: the files are not a network of this kind.
        """
        began = time.perf_counter()
        check_placement(threads)
        prepared = prepare(variant)
        replaced = deformable.replace(
            prepared.model, mode=kernels, int8=variant.precision == "int8", floats=inference_precision
        )
        notes = [*prepared.notes, *replaced.notes]
        key = compile_key(variant.digest, inference_precision, replaced.kernel or "", replaced.digest)
        cache = cache_dir and cache_dir / "compiled" / key
        compiled = _compile(prepared, _properties(streams, threads, inference_precision), cache, notes)
        _check_granted(compiled, streams, threads)
        got = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        notes += _precision_notes(inference_precision, got)
        if strays := stray_threads():
            notes.append(f"{strays} threads made before the CPU mask was set may run outside it")
        for note in notes:
            log.warning(note, extra=event("model_settings_adjusted", model=variant.label))
        device = str(core().get_property("CPU", "FULL_DEVICE_NAME"))
        seconds = time.perf_counter() - began
        return cls(
            compiled,
            _Facts(
                variant, prepared, streams, threads, inference_precision, got, device, seconds, tuple(notes), replaced
            ),
        )

    @property
    def size(self) -> int:
        """Side R of the square input and output, in pixels."""
        return self._facts.variant.size

    @property
    def requests(self) -> int:
        """Images that can be in flight; more callers of `infer` wait for one another."""
        return self._facts.streams + 1

    def infer(self, tensor: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Grey levels of one picture.

        Args:
            tensor: u8 [1, R, R, 3], RGB, not normalised. Not to be changed before this returns.

        Returns:
            u8 [R, R], 255 * sigmoid(logits) rounded half to even; memory of its own.

        Raises:
            InferenceFailed: wrong shape or type, or the network raised.
        """
        expected = (1, self.size, self.size, 3)
        if tensor.shape != expected or tensor.dtype != np.uint8:
            raise InferenceFailed(f"a tensor of u8 {expected} is expected, got {tensor.dtype} {tensor.shape}")
        with self._request() as request:
            try:
                # Not infer(): it re-pins the calling thread and serialises callers on one stream.
                request.start_async({0: np.ascontiguousarray(tensor)}, share_inputs=True)
                request.wait()
            except RuntimeError as error:
                raise InferenceFailed(f"{self._facts.variant.label} failed on this image: {error}") from error
            grey: NDArray[np.uint8] = request.get_output_tensor(0).data[0, 0].copy()
        return grey

    def warm_up(self) -> float:
        """Run every request once on a black picture, so that memory is allocated; returns the seconds taken."""
        began = time.perf_counter()
        black = np.zeros((1, self.size, self.size, 3), np.uint8)
        with ThreadPoolExecutor(self.requests) as pool:
            list(pool.map(self.infer, [black] * self.requests))
        return time.perf_counter() - began

    def describe(self) -> dict[str, Any]:
        """What runs here, ready for JSON: asked for and granted, kernels, placement, times."""
        facts = self._facts
        nodes = [
            {key: value.astype(str) for key, value in node.rt_info.items()}
            for node in self._compiled.get_runtime_model().get_ops()
        ]
        executed = [node for node in nodes if node["layerType"] not in _NOT_EXECUTED]
        return {
            "model": facts.variant.name,
            "size": facts.variant.size,
            "precision": facts.variant.precision,
            "digest": facts.variant.digest,
            "mean": list(facts.prepared.mean),
            "scale": list(facts.prepared.scale),
            "inference_precision_requested": facts.requested,
            "inference_precision": facts.compiled,
            "execution_types": dict(Counter(node["primitiveType"] for node in executed).most_common()),
            "runtime_precisions": dict(Counter(node["runtimePrecision"] for node in executed).most_common()),
            "deformable_convolution": facts.deformable.describe(),
            "streams": facts.streams,
            "threads": facts.threads,
            "requests": self.requests,
            "device": facts.device,
            "openvino": ov.__version__,
            "load_seconds": round(facts.seconds, 3),
            "loaded_from_cache": bool(self._compiled.get_property("LOADED_FROM_CACHE")),
            "notes": list(facts.notes),
        }

    def close(self) -> None:
        """Wait for the images in flight and free the network. Calling it again does nothing."""
        for _ in range(self.requests):
            if self._idle.get() is None:
                break
        self._idle.put(None)
        self._compiled = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _request(self) -> Iterator[Any]:
        """Borrow an idle request; it goes back whatever happens."""
        request = self._idle.get()
        try:
            if request is None:
                raise RuntimeError("the engine is closed")
            yield request
        finally:
            self._idle.put(request)


def _properties(streams: int, threads: int, inference_precision: str) -> dict[str, Any]:
    """Everything explicit: no hint decides streams, threads, siblings or arithmetic."""
    return {
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": True,
        "ENABLE_HYPER_THREADING": False,
        "INFERENCE_PRECISION_HINT": inference_precision,
    }


def _compile(prepared: Prepared, properties: dict[str, Any], cache: Path | None, notes: list[str]) -> Any:
    """Compile, through the cache folder if there is one that can be written."""
    try:
        if cache:
            try:
                with compiled_cache.turn(cache):
                    return core().compile_model(prepared.model, "CPU", properties | {"CACHE_DIR": str(cache)})
            except OSError as error:
                notes.append(f"compiled models are not cached: {error}")
        return core().compile_model(prepared.model, "CPU", properties)
    except RuntimeError as error:
        name = prepared.model.get_friendly_name()
        raise BundleError(f"{name} cannot be compiled for this CPU: {error}") from error


def _check_granted(compiled: Any, streams: int, threads: int) -> None:
    """What was asked is what was compiled."""
    granted = compiled.get_property("NUM_STREAMS"), compiled.get_property("INFERENCE_NUM_THREADS")
    if granted != (streams, threads):
        raise PlacementError(
            f"asked OpenVINO for {streams} streams with {threads} threads in all, it grants {granted[0]} with "
            f"{granted[1]}; choose streams <= threads, threads a multiple of streams, and one CPU of each core only"
        )


def _precision_notes(asked: str, got: str) -> list[str]:
    """A precision that this CPU does not have is never passed over in silence."""
    if asked != got:
        return [f"{asked} was asked for, this CPU computes in {got}"]
    if _CAPABILITY[asked] not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return [f"{asked} is simulated on this CPU, which is slow: choose f32"]
    return []
