"""One trace covers a job from `producer submit` to the PUT, as an OTLP collector receives it."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from PIL import Image

from support import commands
from worker.contract.job import JobStatus


@dataclass
class Collector:
    """The received spans and the names of their services."""

    port: int
    spans: dict[bytes, object] = field(default_factory=dict)
    services: set[str] = field(default_factory=set)

    def receive(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            facts = {item.key: item.value.string_value for item in resource.resource.attributes}
            self.services.add(facts["service.name"])
            for scope in resource.scope_spans:
                self.spans |= {span.span_id: span for span in scope.spans}

    def named(self, name: str) -> list:
        return [span for span in self.spans.values() if span.name == name]

    def ancestors(self, span) -> list[str]:
        """Return the names of the spans above a span, nearest first."""
        names = []
        while span := self.spans.get(span.parent_span_id):
            names.append(span.name)
        return names


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.receive(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield collector
        server.shutdown()


def test_one_trace_covers_submit_to_put(installation, ledger, collector, tmp_path, worker_log):
    (tmp_path / "photos").mkdir()
    for number in range(2):
        Image.new("RGB", (64, 48), (200, 210, 90)).save(tmp_path / "photos" / f"{number}.jpg")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no picture")
    settings = installation.environment | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}"}

    done = commands.run(
        "producer", "submit", "photos", f"s3://{installation.bucket}/m/", "--json", settings=settings, cwd=tmp_path
    )
    job = done.lines[0]["job"]
    with commands.workers(settings, worker_log):
        commands.wait_for(lambda: ledger.view(job).status is JobStatus.FINISHED, "the job to finish")

    assert collector.services == {"maskmill-producer", "maskmill-worker"}
    assert len({span.trace_id for span in collector.spans.values()}) == 1
    assert {name: len(collector.named(name)) for name in ("submit", "list", "job", "manifest", "publish", "image")} == {
        **dict.fromkeys(("submit", "list", "job", "manifest", "publish"), 1),
        "image": 3,
    }
    puts = collector.named("store")
    assert len(puts) == 2
    assert all(collector.ancestors(put) == ["image", "chunk", "job", "submit"] for put in puts)
    image = next(span for span in collector.named("image") if span.span_id == puts[0].parent_span_id)
    assert image.start_time_unix_nano <= puts[0].start_time_unix_nano <= puts[0].end_time_unix_nano
    assert puts[0].end_time_unix_nano <= image.end_time_unix_nano
    facts = {item.key: item.value.string_value or item.value.int_value for item in image.attributes}
    assert facts["maskmill.outcome"] == "ok" and facts["maskmill.key"] in ("0.jpg", "1.jpg")
    spans = str(list(collector.spans.values()))
    for secret in (installation.settings.redis.password, installation.settings.s3.secret_access_key):
        assert secret.get_secret_value() not in spans


def test_without_a_collector_opentelemetry_is_not_imported(installation, tmp_path):
    """Applies to this project only: redis-py imports the metrics of OpenTelemetry if they are installed."""
    code = (
        "import sys; from producer import Client; from worker.contract import tracing; "
        "client = Client(); client.close(); assert not tracing.start('x').enabled; "
        "ours = ('opentelemetry.sdk.trace', 'opentelemetry.exporter'); "
        "print([name for name in sys.modules if name.startswith(ours)])"
    )

    done = commands.run("python", "-c", code, settings=installation.environment, cwd=tmp_path)

    assert done.out.strip() == "[]"
