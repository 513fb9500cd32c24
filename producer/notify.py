"""Tell an address of the user's that a job has ended: one signed POST, tried again while it may help.

Signed as Standard Webhooks 1.0 has it (standardwebhooks.com), so that receivers can verify with its libraries:
`webhook-signature: v1,base64(HMAC-SHA256(key, "{webhook-id}.{webhook-timestamp}.{body}"))`. The id is the same for
every try and every sender of one ending, so a receiver can drop what it has seen.

An address may hold a token of its own, so no more than its host is ever told.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ipaddress
import json
import logging
import random
import re
import ssl
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

from producer.watch import Sample, mean_rate
from worker.contract.errors import NotificationFailed, SettingsError
from worker.contract.job import JobView
from worker.contract.settings import NotifySettings

log = logging.getLogger(__name__)

_PAUSE_SECONDS, _LONGEST_PAUSE = 1.0, 60.0
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same message may be taken later."""

_ADDRESS = re.compile(r"https?://[!-~]+", re.IGNORECASE)


class Notifier:
    """Sends to one address."""

    def __init__(self, url: str, settings: NotifySettings) -> None:
        """Nothing is sent yet.

        Raises:
            SettingsError: the address cannot be used, or there is nothing to sign with.
        """
        self._host = _checked(url, allow_http=settings.allow_http)
        key = settings.key()
        if key is None:
            raise SettingsError(
                "messages to --notify are signed: set MASKMILL_NOTIFY__SECRET, for example to what "
                "`openssl rand -base64 32` prints, and give it to the receiver"
            )
        self._url, self._key, self._settings = url, key, settings
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if _is_loopback(urlsplit(url).hostname):
            handlers.append(urllib.request.ProxyHandler({}))  # which could not reach our loopback
        if urlsplit(url).scheme.lower() == "https":
            handlers.append(urllib.request.HTTPSHandler(context=_tls(settings)))
        self._opener = urllib.request.build_opener(*handlers)

    @property
    def host(self) -> str:
        """What may be told of the address."""
        return self._host

    def ended(self, view: JobView, exit_code: int) -> None:
        """Tell that a job has ended.

        Raises:
            NotificationFailed: it was refused, or not taken however often it was tried.
        """
        self.send(f"{view.job}.{view.epoch}.{view.status.value}", message(view, exit_code))

    def send(self, id: str, content: dict[str, Any]) -> None:
        """Post one message.

        Raises:
            NotificationFailed: it was refused, or not taken however often it was tried.
        """
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        for attempt in range(1, self._settings.attempts + 1):
            reason, wait = self._try(id, body)
            if reason is None:
                return
            if wait is None or attempt == self._settings.attempts:
                tries = "once" if attempt == 1 else f"{attempt} times"
                raise NotificationFailed(f"{self._host} was not told: {reason} (tried {tries})")
            pause = max(wait, min(_LONGEST_PAUSE, _PAUSE_SECONDS * 2 ** (attempt - 1)) * random.uniform(0.5, 1))
            log.info("event=notify_again host=%s attempt=%d reason=%s", self._host, attempt, reason)
            time.sleep(pause)

    def _try(self, id: str, body: bytes) -> tuple[str | None, float | None]:
        """Why it was not taken, and how long to wait at least before trying again; no time: never."""
        now = int(time.time())  # of each try: receivers refuse old ones
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
                return None, None
        except urllib.error.HTTPError as error:
            with error:
                return f"it answered {error.code}", _wait(error) if error.code in _AGAIN else None
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                return "its certificate is not trusted (MASKMILL_NOTIFY__CA_FILE names another authority)", None
            return _in_words(error.reason), 0.0
        except (OSError, http.client.HTTPException) as error:
            return _in_words(error), 0.0


def message(view: JobView, exit_code: int) -> dict[str, Any]:
    """What is told: `type`, `timestamp` and `data`, as Standard Webhooks recommends."""
    return {
        "type": f"job.{view.status.value}",
        "timestamp": datetime.fromtimestamp(view.finished_at or time.time(), UTC).isoformat(timespec="milliseconds"),
        "data": Sample(view, mean_rate(view)).as_dict()
        | {
            "source": str(view.options.source),
            "dest": str(view.options.dest),
            "reason": view.reason,
            "failures_by_code": view.codes,
            "started_at": view.started_at,
            "finished_at": view.finished_at,
            "core_seconds": round(view.core_seconds, 3),
            "exit_code": exit_code,
        },
    }


def signature(key: bytes, id: str, timestamp: int, body: bytes) -> str:
    """Value of `webhook-signature`."""
    digest = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode("ascii")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """What is signed for one address is not carried to another."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _checked(url: str, *, allow_http: bool) -> str:
    """Scheme and host of an address, which may be shown."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not _ADDRESS.fullmatch(url) or not host:
        raise SettingsError("--notify needs an address such as https://example.org/hooks/maskmill")
    if parts.username or parts.password:
        raise SettingsError(
            f"--notify to {host} must not carry a user or password: others see it in the list of processes; the "
            "signature shows who sends"
        )
    if parts.scheme.lower() == "http" and not allow_http:
        raise SettingsError(
            f"--notify to {host} is not encrypted: write https://, or set MASKMILL_NOTIFY__ALLOW_HTTP=true where "
            "that is intended"
        )
    return f"{parts.scheme.lower()}://{host}" + (f":{port}" if port else "")


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def _tls(settings: NotifySettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise SettingsError(f"MASKMILL_NOTIFY__CA_FILE {settings.ca_file} cannot be used: {error.strerror}") from error


def _wait(error: urllib.error.HTTPError) -> float:
    """Seconds that the receiver asks for, within reason."""
    asked = error.headers.get("retry-after", "")
    return min(_LONGEST_PAUSE, float(asked)) if asked.isdecimal() else 0.0


def _in_words(error: object) -> str:
    """Texts of the HTTP library may quote the address."""
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
