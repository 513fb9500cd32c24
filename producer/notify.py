"""Send a webhook when a job ends: one signed POST, retried while a retry may succeed.

The signature follows Standard Webhooks 1.0 (standardwebhooks.com), so receivers can verify it with that project's
libraries: `webhook-signature: v1,base64(HMAC-SHA256(key, "{webhook-id}.{webhook-timestamp}.{body}"))`. All attempts and
all senders use the same id for one end of a job, so a receiver can drop duplicates.

The URL may contain a token, so messages and logs show nothing of it but scheme, host and port.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ipaddress
import json
import logging
import queue
import random
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from importlib import metadata
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from producer.watch import JobSnapshot, mean_rate
from producer.wording import iso_time
from worker.contract.errors import NotificationFailed, SettingsError
from worker.contract.job import JobView
from worker.contract.log_fields import event
from worker.contract.settings import NotifySettings

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0
_RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses after which the receiver may accept the same message later."""

_URL = re.compile(r"https?://[!-~]+", re.IGNORECASE)


_TOO_SLOW = "it did not answer in time"


class _Attempt(NamedTuple):
    """The result of one attempt."""

    reason: str | None
    """Why it failed; None if it succeeded."""
    pause: float | None
    """Shortest pause before a retry in seconds; None if a retry cannot succeed."""


class Notifier:
    """Sends messages to one URL."""

    def __init__(self, url: str, settings: NotifySettings) -> None:
        """Check the URL and the settings; nothing is sent yet.

        Raises:
            SettingsError: the URL cannot be used, the signing secret is missing or the CA file cannot be read.
        """
        self._host = _checked_host(url, allow_http=settings.allow_http)
        key = settings.key()
        if key is None:
            raise SettingsError(
                "--notify needs a secret to sign with: set MASKMILL_NOTIFY__SECRET, for example to the output of "
                "`openssl rand -base64 32`, and give it to the receiver"
            )
        self._url, self._key, self._settings = url, key, settings
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if _is_loopback(urlsplit(url).hostname):
            handlers.append(urllib.request.ProxyHandler({}))  # a proxy cannot reach this machine's loopback
        if urlsplit(url).scheme.lower() == "https":
            handlers.append(urllib.request.HTTPSHandler(context=_tls_context(settings)))
        self._opener = urllib.request.build_opener(*handlers)

    def send_job_ended(self, view: JobView, exit_code: int) -> None:
        """Send the result of an ended job.

        Raises:
            NotificationFailed: the receiver refused the message, or every attempt failed.
        """
        self.send(f"{view.job}.{view.epoch}.{view.status.value}", message(view, exit_code))

    def send(self, id: str, content: dict[str, Any]) -> None:
        """Post one message, with exponential back-off between attempts.

        Raises:
            NotificationFailed: the receiver refused the message, or every attempt failed.
        """
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        for attempt in range(1, self._settings.attempts + 1):
            reason, shortest_pause = self._post(id, body)
            if reason is None:
                return
            if shortest_pause is None or attempt == self._settings.attempts:
                attempts = "1 attempt" if attempt == 1 else f"{attempt} attempts"
                raise NotificationFailed(f"notification to {self._host} failed after {attempts}: {reason}")
            back_off = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
            pause = max(shortest_pause, back_off * random.uniform(0.5, 1))
            log.info(reason, extra=event("notification_retried", host=self._host, attempt=attempt))
            time.sleep(pause)

    def _post(self, id: str, body: bytes) -> _Attempt:
        """Post the message once, within the time limit.

        The time-out of a socket starts again with every byte that arrives. So the request runs in a thread of its own,
        which is left behind if it takes longer in all: it ends with its connection or with the process.
        """
        answers: queue.SimpleQueue[_Attempt | Exception] = queue.SimpleQueue()

        def post() -> None:
            try:
                answers.put(self._request(id, body))
            except Exception as error:  # noqa: BLE001 -- raised again below
                answers.put(error)

        threading.Thread(target=post, name="maskmill-notify", daemon=True).start()
        try:
            answer = answers.get(timeout=self._settings.timeout_seconds)
        except queue.Empty:
            return _Attempt(_TOO_SLOW, 0.0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _request(self, id: str, body: bytes) -> _Attempt:
        now = int(time.time())  # new for each attempt: receivers refuse old timestamps
        headers = {
            "content-type": "application/json",
            "user-agent": f"maskmill/{metadata.version('maskmill')}",
            "webhook-id": id,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(self._key, id, now, body),
        }
        request = urllib.request.Request(self._url, body, headers, method="POST")  # noqa: S310 -- https, or http on request
        try:
            with self._opener.open(request, timeout=self._settings.timeout_seconds):
                return _Attempt(None, None)
        except urllib.error.HTTPError as error:
            with error:
                pause = _retry_after(error) if error.code in _RETRYABLE_STATUSES else None
                return _Attempt(f"it answered {error.code}", pause)
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                remedy = "set MASKMILL_NOTIFY__CA_FILE to trust another authority"
                return _Attempt(f"its certificate is not trusted ({remedy})", None)
            return _Attempt(_describe(error.reason), 0.0)
        except (OSError, http.client.HTTPException) as error:
            return _Attempt(_describe(error), 0.0)


def message(view: JobView, exit_code: int) -> dict[str, Any]:
    """Return the message about an ended job: `type`, `timestamp` and `data`, as Standard Webhooks recommends."""
    return {
        "type": f"job.{view.status.value}",
        "timestamp": iso_time(view.finished_at or time.time()),
        "data": JobSnapshot(view, mean_rate(view)).as_dict()
        | {
            "source": str(view.options.source),
            "dest": str(view.options.dest),
            "reason": view.reason,
            "failures_by_code": view.codes,
            "started_at": iso_time(view.started_at),
            "finished_at": iso_time(view.finished_at),
            "core_seconds": round(view.core_seconds, 3),
            "exit_code": exit_code,
        },
    }


def signature(key: bytes, id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the `webhook-signature` header."""
    digest = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode("ascii")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, because a message signed for one URL must not reach another."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _checked_host(url: str, *, allow_http: bool) -> str:
    """Check the URL and return its scheme, host and port, which may be shown."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not _URL.fullmatch(url) or not host:
        raise SettingsError("--notify needs a URL such as https://example.org/hooks/maskmill")
    if parts.username or parts.password:
        raise SettingsError(
            f"--notify to {host}: remove user and password from the URL; other users of this machine see them in the "
            "list of processes, and the signature already identifies the sender"
        )
    if parts.scheme.lower() == "http" and not allow_http:
        raise SettingsError(
            f"--notify to {host} is not encrypted: use https://, or set MASKMILL_NOTIFY__ALLOW_HTTP=true if http is "
            "intended"
        )
    return f"{parts.scheme.lower()}://{host}" + (f":{port}" if port else "")


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def _tls_context(settings: NotifySettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise SettingsError(f"MASKMILL_NOTIFY__CA_FILE {settings.ca_file} cannot be read: {error.strerror}") from error


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Return the seconds in the `Retry-After` header, at most 60; 0 if it has none."""
    seconds = error.headers.get("retry-after", "")
    return min(_LONGEST_PAUSE_SECONDS, float(seconds)) if seconds.isdecimal() else 0.0


def _describe(error: object) -> str:
    """Return the reason without the error's own text, which may quote the URL."""
    if isinstance(error, TimeoutError):
        return _TOO_SLOW
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
