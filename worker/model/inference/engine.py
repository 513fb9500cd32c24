"""Run the compiled network: u8 pixels in, u8 grey levels out, called by several threads at the same time.

Importing this module imports OpenVINO. Only the model process may do so, after its CPU mask is set; a Celery parent
never does (see `worker.model.inference.runtime`).

    image threads --infer--> streams + 1 idle requests --start_async--> streams of the CPU plugin

With one request more than streams, every stream stays busy while a finished image is handed over.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
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
from worker.contract.input_size import InputSize
from worker.contract.log_fields import event
from worker.contract.settings import NativeKernels
from worker.model.format.variant import Variant
from worker.model.inference import compiled_cache, one_channel, token_parts, upsampling
from worker.model.inference import graph as graph_module
from worker.model.inference.graph import Prepared, prepare, refusing
from worker.model.inference.native import deformable, layer_norm, levels, replacements, window_attention
from worker.model.inference.native.replacements import Replacements
from worker.model.inference.runtime import check_placement, compile_key, core, cpu_flags, ov, stray_threads

log = logging.getLogger(__name__)

FloatPrecision = Literal["f32", "bf16", "f16"]
"""Arithmetic of the float part of the network; always requested explicitly, as the plugin's default varies by CPU."""

_CAPABILITY = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
_NOT_EXECUTED = frozenset({"Const", "Input", "Output"})


@dataclass(frozen=True)
class _LoadFacts:
    """Facts recorded when a model is loaded, for `Engine.describe`."""

    variant: Variant
    prepared: Prepared
    native: Replacements
    streams: int
    threads: int
    requested: str
    """Inference precision as requested."""

    compiled: str
    """Inference precision as compiled."""

    notes: tuple[str, ...]
    device: str
    seconds: float


class Engine:
    """A compiled network on the CPUs of this process. `infer` is thread-safe. A context manager that closes itself."""

    def __init__(self, compiled: Any, facts: _LoadFacts) -> None:
        """Create the requests of a compiled model; callers use `load`."""
        self._compiled = compiled
        self._facts = facts
        # None among the requests means closed; a thread that takes it puts it back.
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
        kernels: NativeKernels = "auto",
    ) -> Engine:
        """Compile a verified variant for the CPUs of this process.

        Args:
            variant: from `worker.model.sources.bundles.locate`, which verified its files.
            streams: images that are inferred in parallel.
            threads: over all streams; at most the CPUs of the affinity mask.
            inference_precision: of the float part. The plugin replaces a precision that this CPU lacks; `describe` and
                the log report it.
            cache_dir: of compiled models, which makes the next start faster; None for no cache.
            kernels: which native operations may run in place of OpenVINO's.

        Raises:
            PlacementError: OpenVINO does not see the CPUs of the mask, or there are too few of them.
            BundleError: the files are not a network of this kind.
        """
        started = time.perf_counter()
        check_placement(threads)
        prepared = prepare(variant)
        with refusing(variant):
            replaced = replacements.replace(
                prepared.model, mode=kernels, int8=variant.precision == "int8", floats=inference_precision
            )
            if variant.precision == "int8" and token_parts.has_buffer(cpu_flags().split()):
                token_parts.replace(prepared.model)
        notes = [*prepared.notes, *replaced.notes]
        key = compile_key(variant.digest, inference_precision, *replaced.key, graph_version())
        cache = cache_dir and cache_dir / "compiled" / key
        compiled = _compile(prepared, _properties(streams, threads, inference_precision), cache, notes)
        _check_granted(compiled, streams, threads)
        granted = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        notes += [*_precision_notes(inference_precision, granted), *_thread_notes()]
        for note in notes:
            log.warning(note, extra=event("model_settings_adjusted", model=variant.label))
        facts = _LoadFacts(
            variant,
            prepared,
            replaced,
            streams,
            threads,
            requested=inference_precision,
            compiled=granted,
            notes=tuple(notes),
            device=str(core().get_property("CPU", "FULL_DEVICE_NAME")),
            seconds=time.perf_counter() - started,
        )
        return cls(compiled, facts)

    @property
    def size(self) -> InputSize:
        """Height and width of input and output, in pixels."""
        return self._facts.variant.size

    @property
    def requests(self) -> int:
        """Number of images that can be in flight; further callers of `infer` wait."""
        return self._facts.streams + 1

    def infer(self, tensor: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the grey levels of one image.

        Args:
            tensor: u8 [1, height, width, 3], RGB, not normalised. Must not change before this returns.

        Returns:
            A new array u8 [height, width]: 255 * sigmoid(logits), rounded half to even.

        Raises:
            InferenceFailed: the shape or type is wrong, or the network raised.
        """
        expected = (1, self.size.height, self.size.width, 3)
        if tensor.shape != expected or tensor.dtype != np.uint8:
            raise InferenceFailed(f"expected a u8 tensor {expected}, got {tensor.dtype} {tensor.shape}")
        with self._request() as request:
            try:
                # Not infer(), which pins the calling thread again and serialises callers on one stream.
                request.start_async({0: np.ascontiguousarray(tensor)}, share_inputs=True)
                request.wait()
            except (RuntimeError, UnicodeError) as error:
                raise InferenceFailed(f"{self._facts.variant.label} failed on this image: {error}") from error
            grey: NDArray[np.uint8] = request.get_output_tensor(0).data[0, 0].copy()
        return grey

    def warm_up(self) -> float:
        """Run every request once on a black image, which allocates all memory; return the seconds it took."""
        started = time.perf_counter()
        black = np.zeros((1, self.size.height, self.size.width, 3), np.uint8)
        with ThreadPoolExecutor(self.requests) as pool:
            list(pool.map(self.infer, [black] * self.requests))
        return time.perf_counter() - started

    def describe(self) -> dict[str, Any]:
        """Return the facts about the loaded model as JSON types: requested and granted settings, kernels, times."""
        facts = self._facts
        nodes = [
            {key: value.astype(str) for key, value in node.rt_info.items()}
            for node in self._compiled.get_runtime_model().get_ops()
        ]
        executed = [node for node in nodes if node["layerType"] not in _NOT_EXECUTED]
        return {
            "model": facts.variant.name,
            "size": facts.variant.size.as_json(),
            "precision": facts.variant.precision,
            "digest": facts.variant.digest,
            "mean": list(facts.prepared.mean),
            "scale": list(facts.prepared.scale),
            "input_scaling": str(facts.prepared.facts.input_scaling),
            "output_activation": str(facts.prepared.facts.output_activation),
            "output_stretch": str(facts.prepared.facts.output_stretch),
            "inference_precision_requested": facts.requested,
            "inference_precision": facts.compiled,
            "execution_types": dict(Counter(node["primitiveType"] for node in executed).most_common()),
            "runtime_precisions": dict(Counter(node["runtimePrecision"] for node in executed).most_common()),
            **facts.native.describe(),
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
        """Wait for the images in flight, then free the network. A second call does nothing."""
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
        """Borrow an idle request for the block."""
        request = self._idle.get()
        try:
            if request is None:
                raise RuntimeError("the engine is closed")
            yield request
        finally:
            self._idle.put(request)


@functools.cache
def graph_version() -> str:
    """Return a digest of the code that builds the graph around a network, which a compiled model depends on."""
    modules = (graph_module, deformable, layer_norm, levels, one_channel, token_parts, upsampling, window_attention)
    sources = (Path(str(module.__file__)).read_bytes() for module in modules)
    return hashlib.sha256(b"\n".join(sources)).hexdigest()


def _properties(streams: int, threads: int, inference_precision: str) -> dict[str, Any]:
    """Compile properties; all explicit, so that no hint decides streams, threads, SMT siblings or arithmetic."""
    return {
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": True,
        "ENABLE_HYPER_THREADING": False,
        "INFERENCE_PRECISION_HINT": inference_precision,
    }


def _compile(prepared: Prepared, properties: dict[str, Any], cache: Path | None, notes: list[str]) -> Any:
    """Compile with the cache folder, or without it if there is none or it cannot be written (adds a note)."""
    try:
        if cache:
            try:
                with compiled_cache.locked(cache):
                    return core().compile_model(prepared.model, "CPU", properties | {"CACHE_DIR": str(cache)})
            except OSError as error:
                notes.append(f"compiled models are not cached: {error}")
        return core().compile_model(prepared.model, "CPU", properties)
    except (RuntimeError, UnicodeError) as error:  # a message may quote bytes of the file that are no text
        name = prepared.model.get_friendly_name()
        raise BundleError(f"{name} cannot be compiled for this CPU: {error}") from error


def _check_granted(compiled: Any, streams: int, threads: int) -> None:
    """Check that OpenVINO granted the requested streams and threads.

    Raises:
        PlacementError: it did not.
    """
    granted = compiled.get_property("NUM_STREAMS"), compiled.get_property("INFERENCE_NUM_THREADS")
    if granted != (streams, threads):
        raise PlacementError(
            f"requested {streams} streams with {threads} threads in total, OpenVINO grants {granted[0]} with "
            f"{granted[1]}; choose streams <= threads, threads a multiple of streams, and one CPU of each core"
        )


def _precision_notes(requested: str, granted: str) -> list[str]:
    """A note if this CPU replaces or simulates the requested precision."""
    if requested != granted:
        return [f"{requested} was requested, this CPU computes in {granted}"]
    if _CAPABILITY[requested] not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return [f"{requested} is simulated on this CPU, which is slow: choose f32"]
    return []


def _thread_notes() -> list[str]:
    """A note if threads of this process may run outside the CPU mask."""
    strays = stray_threads()
    return [f"{strays} threads made before the CPU mask was set may run outside it"] if strays else []
