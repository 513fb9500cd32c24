"""`--notify` on the command line: the receiver gets the result, and an unreachable one does not affect the job."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from PIL import Image

from support import commands

SECRET = base64.b64encode(bytes(32)).decode()


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 48), (90, 120, 30)).save(tmp_path / "photos" / "a.jpg")
    return str(tmp_path / "photos")


@pytest.fixture
def receiver():
    """A server, as its URL and the list of messages it received."""
    seen: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/t0ken", seen
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_end_of_a_job_is_sent_to_the_receiver(running_installation, photos, receiver):
    url, seen = receiver
    notifying = running_installation.environment | {
        "MASKMILL_NOTIFY__SECRET": SECRET,
        "MASKMILL_NOTIFY__ALLOW_HTTP": "true",
        "MASKMILL_NOTIFY__ATTEMPTS": "1",
    }
    submit = ("submit", photos, f"s3://{running_installation.bucket}/told/", "--wait", "--json", "--timeout", "60")
    done = commands.run("producer", *submit, "--notify", url, settings=notifying)
    assert (done.code, done.err) == (0, "")
    job = done.lines[0]["job"]

    again = commands.run("producer", "watch", job, settings=notifying | {"PRODUCER_WATCH_NOTIFY": url})
    gone = commands.run("producer", "watch", job, "--notify", "http://127.0.0.1:9/t0ken", settings=notifying)

    assert [(sent["type"], sent["data"]["job"], sent["data"]["ok"]) for sent in seen] == [("job.finished", job, 1)] * 2
    assert again.code == 0
    assert gone.code == 0, "a failed notification must not change the exit code"
    assert (
        "notification_failed" in gone.err and "notification to http://127.0.0.1:9 failed after 1 attempt: " in gone.err
    )
    assert "t0ken" not in gone.err + gone.out


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ((), {}, "--notify requires --wait"),
        (("--wait",), {"MASKMILL_NOTIFY__ALLOW_HTTP": "true"}, "MASKMILL_NOTIFY__SECRET"),
        (("--wait",), {"MASKMILL_NOTIFY__SECRET": SECRET}, "MASKMILL_NOTIFY__ALLOW_HTTP=true"),
    ],
)
def test_missing_settings_are_reported_before_anything_is_submitted(
    installation, photos, arguments, environment, message
):
    done = commands.run(
        "producer",
        *("submit", photos, f"s3://{installation.bucket}/told/", "--notify", "http://example.org/t0ken", *arguments),
        settings=installation.environment | environment,
    )

    assert done.code == 1 and message in done.err and "t0ken" not in done.err
    assert commands.run("producer", "list", "--json", settings=installation.environment).out == ""
