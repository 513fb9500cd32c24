"""Optional traces, from `producer submit` to the last PUT: the only module that knows OpenTelemetry.

    submit (list, manifest, publish) ── traceparent in the job's record and in each chunk message ──> chunk
                                                                        └── image ── its stages, one after the other

Off unless one of the standard variables names a collector (`OTEL_EXPORTER_OTLP_ENDPOINT`); then nothing is imported
and nothing measured. Sampling, headers and time-outs are those of the standard too (`OTEL_TRACES_SAMPLER`, ...).
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
"""Key of W3C Trace Context, level 1."""

_NANO = 1_000_000_000


class Tracing:
    """Spans of one process; without a collector every call does nothing."""

    def __init__(self, provider: Any = None) -> None:
        """`provider`: an OpenTelemetry SDK's; None for none."""
        self._provider = provider
        self._tracer = provider.get_tracer("maskmill") if provider else None

    @property
    def on(self) -> bool:
        """Somebody wants to know."""
        return self._tracer is not None

    @contextlib.contextmanager
    def span(self, name: str, *, parent: str = "", **attributes: str | int) -> Iterator[str]:
        """A span around a block, below the one that is open here or, if given, below a `traceparent`.

        Yields:
            Its own `traceparent`; empty when traces are off.
        """
        if self._tracer is None:
            yield ""
            return
        propagation = importlib.import_module("opentelemetry.trace.propagation.tracecontext")
        form = propagation.TraceContextTextMapPropagator()
        above = form.extract({HEADER: parent}) if parent else None
        # What Celery is told by an exception is no error, and text of errors may name what is not for a trace.
        quiet = {"record_exception": False, "set_status_on_exception": False}
        with self._tracer.start_as_current_span(name, context=above, attributes=_named(attributes), **quiet):
            carrier: dict[str, str] = {}
            form.inject(carrier)
            yield carrier.get(HEADER, "")

    def image(self, outcome: Outcome) -> None:
        """The spans of an image that has just ended, from the times that were measured anyway."""
        if self._tracer is None:
            return
        trace = importlib.import_module("opentelemetry.trace")
        ended = time.time_ns()
        at = ended - int(outcome.seconds * _NANO)
        facts = {"image": outcome.index, "key": outcome.key, "outcome": outcome.kind.value, "code": outcome.code}
        span = self._tracer.start_span("image", start_time=at, attributes=_named(facts))
        below = trace.set_span_in_context(span)
        for stage, seconds in outcome.stages.items():
            child = self._tracer.start_span(stage, context=below, start_time=at)
            at += int(seconds * _NANO)
            child.end(min(at, ended))
        span.end(ended)

    def close(self) -> None:
        """Send what has not been sent."""
        if self._provider is not None:
            self._provider.shutdown()


OFF = Tracing()


def wanted() -> bool:
    """Whether the environment names a collector."""
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not disabled and any(os.environ.get(name) for name in ENDPOINTS)


def start(service: str, instance: str = "") -> Tracing:
    """Traces of this process, if they are wanted. Call it after any fork: a thread sends them.

    Args:
        service: `service.name`, unless OTEL_SERVICE_NAME says another.
        instance: `service.instance.id`.
    """
    if not wanted():
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
def started(service: str) -> Iterator[Tracing]:
    """`start` for the length of a block; what there is to send is sent at its end."""
    found = start(service)
    try:
        yield found
    finally:
        found.close()


def _named(facts: dict[str, Any]) -> dict[str, Any]:
    return {f"maskmill.{name}": value for name, value in facts.items() if value != ""}
