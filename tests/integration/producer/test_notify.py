"""Notifications to a real receiver: signed, retried while a retry may succeed, and without leaking secrets."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from producer import notify
from producer.notify import Notifier, message
from support.log_lines import log_text
from worker.contract.errors import NotificationFailed, SettingsError
from worker.contract.job import JobStatus, JobView
from worker.contract.messages import JobOptions
from worker.contract.settings import NotifySettings

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
VIEW = JobView(
    job="job",
    status=JobStatus.FINISHED,
    options=JobOptions(source="s3://a/", dest="s3://b/"),
    total=3,
    ok=2,
    failed=1,
    codes={"missing": 1},
    created_at=1.0,
    started_at=2.0,
    finished_at=4.0,
    epoch=1,
)


class Receiver:
    """Answers with the given statuses in order, then always with 204."""

    def __init__(self, *answers: int, **headers: str) -> None:
        self.answers, self.headers = list(answers), headers
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                status = receiver.answers.pop(0) if receiver.answers else 204
                if status == 0:
                    time.sleep(1.5)
                    return
                self.send_response(status)
                for name, value in receiver.headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook/t0ken?key=t0ken"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the pauses instead of sleeping."""
    waited: list[float] = []

    class Clock:
        time = staticmethod(time.time)
        sleep = staticmethod(waited.append)

    monkeypatch.setattr(notify, "time", Clock)
    return waited


def notifier(url: str, **settings) -> Notifier:
    return Notifier(url, NotifySettings(**{"secret": SECRET, "allow_http": True} | settings))


def test_a_message_is_signed_over_id_time_and_body():
    with Receiver() as receiver:
        notifier(receiver.url).send_job_ended(VIEW, 3)

    [(path, headers, body)] = receiver.seen
    assert path == "/hook/t0ken?key=t0ken"
    assert (headers["webhook-id"], headers["content-type"]) == ("job.1.finished", "application/json")
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    payload = json.loads(body)
    assert (payload["type"], payload["timestamp"]) == ("job.finished", "1970-01-01T00:00:04.000Z")
    data = payload["data"]
    assert (data["ok"], data["failed"], data["exit_code"], data["failures_by_code"]) == (2, 1, 3, {"missing": 1})


def test_the_example_of_the_readme_verifies_a_message():
    readme = (Path(__file__).parents[3] / "producer" / "README.md").read_text("utf-8")
    [snippet] = [text for text in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "webhook" in text]
    found: dict[str, object] = {}
    exec(snippet, found)  # noqa: S102 -- our own README
    with Receiver() as receiver:
        notifier(receiver.url).send_job_ended(VIEW, 3)

    [(_, headers, body)] = receiver.seen
    assert found["is_genuine"](headers, body, SECRET) is True
    assert found["is_genuine"](headers, body + b" ", SECRET) is False
    assert found["is_genuine"](headers | {"webhook-timestamp": "1700000000"}, body, SECRET) is False


def test_retries_have_growing_pauses_and_the_same_id(pauses):
    with Receiver(500, 503, 429) as receiver:
        notifier(receiver.url).send_job_ended(VIEW, 0)

    assert len(receiver.seen) == 4
    assert {headers["webhook-id"] for _, headers, _ in receiver.seen} == {"job.1.finished"}
    assert all(least <= pause <= 2 * least for pause, least in zip(pauses, (0.5, 1, 2), strict=True))


def test_retry_after_is_honoured_up_to_a_limit(pauses):
    with Receiver(429, 503, retry_after="7") as receiver:
        notifier(receiver.url).send_job_ended(VIEW, 0)
    with Receiver(429, retry_after="86400") as receiver:
        notifier(receiver.url).send_job_ended(VIEW, 0)

    assert pauses == [7, 7, 60]


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410])
def test_permanent_errors_are_not_retried_and_redirects_not_followed(status, pauses):
    with (
        Receiver() as elsewhere,
        Receiver(status, location=elsewhere.url) as receiver,
        pytest.raises(NotificationFailed, match=f"failed after 1 attempt: it answered {status}$"),
    ):
        notifier(receiver.url).send_job_ended(VIEW, 0)

    assert (len(receiver.seen), elsewhere.seen, pauses) == (1, [], [])


def test_a_silent_or_unreachable_receiver_fails_after_the_last_attempt(pauses):
    with (
        Receiver(0, 0) as receiver,
        pytest.raises(NotificationFailed, match=r"after 2 attempts: it did not answer in time"),
    ):
        notifier(receiver.url, timeout_seconds=0.2, attempts=2).send_job_ended(VIEW, 0)
    with pytest.raises(
        NotificationFailed, match=r"notification to http://127.0.0.1:\d+ failed after 3 attempts: Connection refused"
    ):
        notifier(receiver.url, attempts=3).send_job_ended(VIEW, 0)

    assert len(pauses) == 3


def test_no_secret_is_shown(caplog):
    caplog.set_level("DEBUG")
    with Receiver(500, 400) as receiver, pytest.raises(NotificationFailed) as raised:
        notifier(receiver.url).send_job_ended(VIEW, 0)

    texts = log_text(caplog) + str(raised.value) + json.dumps(message(VIEW, 0))
    assert "event=notification_retried" in log_text(caplog)
    assert "t0ken" not in texts and SECRET not in texts and SECRET.removeprefix("whsec_") not in texts


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.org/t0ken", "MASKMILL_NOTIFY__ALLOW_HTTP"),
        ("http://127.0.0.1/t0ken", "MASKMILL_NOTIFY__ALLOW_HTTP"),
        ("https://user:t0ken@example.org/", "user and password"),
        ("ftp://example.org/t0ken", "such as https://"),
        ("file:///t0ken", "such as https://"),
        ("https:///t0ken", "such as https://"),
        ("https://[t0ken", "such as https://"),
        ("https://example.org:t0ken/", "such as https://"),
        ("https://example.org/\r\nt0ken: 1", "such as https://"),
        ("t0ken", "such as https://"),
    ],
)
def test_an_unusable_url_is_refused_without_being_shown(url, message):
    with pytest.raises(SettingsError, match=message) as raised:
        Notifier(url, NotifySettings(secret=SECRET))
    assert "t0ken" not in str(raised.value)


def test_without_a_secret_nothing_is_sent():
    with pytest.raises(SettingsError, match="MASKMILL_NOTIFY__SECRET"):
        Notifier("https://example.org/", NotifySettings())


def test_a_missing_ca_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match="MASKMILL_NOTIFY__CA_FILE"):
        notifier("https://example.org/", ca_file=tmp_path / "ca.pem")


def test_a_receiver_that_drips_is_given_up_after_the_limit_of_an_attempt():
    """Every byte comes within the time-out of a socket; the answer is complete after the limit."""
    given_up = threading.Event()

    def drip(server: socket.socket) -> None:
        client, _ = server.accept()
        with client:
            client.sendall(b"HTTP/1.1 204 ")
            for _ in range(100):
                if given_up.wait(0.1):
                    return
                client.sendall(b"x")
            client.sendall(b"\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/hook"
        try:
            with pytest.raises(NotificationFailed, match="did not answer in time"):
                notifier(url, timeout_seconds=1.0, attempts=1).send_job_ended(VIEW, 0)
        finally:
            given_up.set()
            thread.join()
