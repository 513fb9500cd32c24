"""Optional traces from `producer submit` to the last PUT. The only module that uses OpenTelemetry.

    submit (list, manifest, publish) ── traceparent in the job record and in each chunk message ──> chunk
                                                                                   └── image ── its stages in sequence

Tracing is off unless one of the standard variables names a collector (`OTEL_EXPORTER_OTLP_ENDPOINT`). When it is off,
nothing is imported or measured. The other standard variables apply as well (`OTEL_TRACES_SAMPLER`, ...).
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

from worker.contract.log_fields import event
from worker.contract.messages import Outcome

log = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
HEADER = "traceparent"
"""Name of the header of W3C Trace Context, level 1."""

_NANO = 1_000_000_000


class Tracing:
    """The spans of one process. Without a collector, every call does nothing."""

    def __init__(self, provider: Any = None) -> None:
        """Create spans with `provider`, a TracerProvider of the OpenTelemetry SDK; None turns tracing off."""
        self._provider = provider
        self._tracer = provider.get_tracer("maskmill") if provider else None

    @property
    def enabled(self) -> bool:
        """Whether spans are created."""
        return self._tracer is not None

    @contextlib.contextmanager
    def span(self, name: str, *, parent: str = "", **attributes: str | int) -> Iterator[str]:
        """Create a span around a block, as a child of the span `parent` (a traceparent) or of the current span.

        Yields:
            The traceparent of the new span; empty when tracing is off.
        """
        if self._tracer is None:
            yield ""
            return
        propagation = importlib.import_module("opentelemetry.trace.propagation.tracecontext")
        propagator = propagation.TraceContextTextMapPropagator()
        above = propagator.extract({HEADER: parent}) if parent else None
        # The exceptions that signal to Celery are not errors, and error texts may contain data unfit for a trace.
        quiet = {"record_exception": False, "set_status_on_exception": False}
        with self._tracer.start_as_current_span(name, context=above, attributes=_attributes(attributes), **quiet):
            carrier: dict[str, str] = {}
            propagator.inject(carrier)
            yield carrier.get(HEADER, "")

    def image(self, outcome: Outcome) -> None:
        """Create the spans of an image that has just ended, from the stage times in its outcome."""
        if self._tracer is None:
            return
        trace = importlib.import_module("opentelemetry.trace")
        ended = time.time_ns()
        at = ended - int(outcome.seconds * _NANO)
        facts = {"image": outcome.index, "key": outcome.key, "outcome": outcome.kind.value, "code": outcome.code}
        span = self._tracer.start_span("image", start_time=at, attributes=_attributes(facts))
        below = trace.set_span_in_context(span)
        for stage, seconds in outcome.stages.items():
            child = self._tracer.start_span(stage, context=below, start_time=at)
            at += int(seconds * _NANO)
            child.end(min(at, ended))
        span.end(ended)

    def close(self) -> None:
        """Send the remaining spans."""
        if self._provider is not None:
            self._provider.shutdown()


OFF = Tracing()


def requested() -> bool:
    """Return whether the environment names a collector."""
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not disabled and any(os.environ.get(name) for name in ENDPOINTS)


def start(service: str, instance: str = "") -> Tracing:
    """Start tracing in this process, if requested. Call it after any fork, because a thread sends the spans.

    Args:
        service: the attribute `service.name`; OTEL_SERVICE_NAME takes precedence.
        instance: the attribute `service.instance.id`.
    """
    if not requested():
        return OFF
    try:
        sdk = importlib.import_module("opentelemetry.sdk.trace")
        export = importlib.import_module("opentelemetry.sdk.trace.export")
        resources = importlib.import_module("opentelemetry.sdk.resources")
        otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError as error:
        log.warning("%s: no traces are sent; pip install 'maskmill[otel]'", error, extra=event("tracing_unavailable"))
        return OFF
    facts = {"service.name": os.environ.get("OTEL_SERVICE_NAME") or service, "service.instance.id": instance}
    provider = sdk.TracerProvider(resource=resources.Resource.create({k: v for k, v in facts.items() if v}))
    provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter()))
    return Tracing(provider)


@contextlib.contextmanager
def session(service: str) -> Iterator[Tracing]:
    """Trace a block and send its spans at the end."""
    tracing = start(service)
    try:
        yield tracing
    finally:
        tracing.close()


def _attributes(values: dict[str, Any]) -> dict[str, Any]:
    return {f"maskmill.{name}": value for name, value in values.items() if value != ""}
