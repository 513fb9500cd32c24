"""The metadata service of a machine in a cloud (IMDSv2), whose keys expire, and what an S3 server thinks of them.

    with InstanceRole() as role, MisbehavingS3(Mode(accepts=role.accepts)) as server: ...

As with IMDSv2 only, every answer needs the token of a PUT.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from datetime import UTC, datetime

from support.loopback import LoopbackServer, QuietHandler

ROLE = "maskmill-node"
_ROLES = "/latest/meta-data/iam/security-credentials/"
_TOKEN, _TTL = "X-aws-ec2-metadata-token", "X-aws-ec2-metadata-token-ttl-seconds"


class InstanceRole(LoopbackServer):
    """A context manager that runs the service in a thread."""

    def __init__(self, *, seconds: float = 3600.0, declared_seconds: float | None = None) -> None:
        """Bind a port of the loopback.

        Args:
            seconds: time for which S3 accepts a key.
            declared_seconds: time that the service says, if it is another one.
        """
        super().__init__(_Handler)
        self.seconds, self.declared_seconds = seconds, declared_seconds or seconds
        self.ahead = 0.0
        """Seconds by which the clocks of S3 and of this service are ahead."""

        self.frozen = False
        """The service gives no new keys, only the last ones."""

        self.silent = False
        """The service answers 503."""

        self.requests: list[tuple[str, str, int]] = []
        """Method, path and status of every request."""

        self.refused = 0
        """Requests to S3 with a key that is not valid."""

        self.issued: list[tuple[str, str, float]] = []
        """Access key, session token and time of expiry of all keys."""

        self.tokens: set[str] = set()
        self.lock = threading.Lock()

    def now(self) -> float:
        """Return the time of S3 and of this service, in Unix seconds."""
        return time.time() + self.ahead

    def environment(self) -> dict[str, str]:
        """Return the variables that lead boto3 here."""
        return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.endpoint_url}

    def accepts(self, authorization: str, token: str) -> bool:
        """Return whether S3 accepts a request with these headers."""
        with self.lock:
            for key, session, expires in self.issued:
                if f"Credential={key}/" in authorization and session == token and self.now() < expires:
                    return True
            self.refused += 1
            return False

    def current(self) -> dict[str, str]:
        """Return the keys that the service gives now; it makes new ones when half the time of the last ones is over."""
        with self.lock:
            if not self.issued or (not self.frozen and self.now() > self.issued[-1][2] - self.seconds / 2):
                number = len(self.issued) + 1
                self.issued.append((f"ASIA{number:016}", secrets.token_hex(16), self.now() + self.seconds))
            key, token, expires = self.issued[-1]
            declared = datetime.fromtimestamp(expires - self.seconds + self.declared_seconds, UTC)
        return {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": key,
            "SecretAccessKey": "secret",
            "Token": token,
            "Expiration": declared.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


class _Handler(QuietHandler):
    @property
    def role(self) -> InstanceRole:
        return self.server.owner  # type: ignore[attr-defined, no-any-return]

    def do_PUT(self) -> None:
        if self.path != "/latest/api/token" or not (self.headers.get(_TTL) or "").isdecimal():
            self.answer(400)
            return
        token = secrets.token_hex(8)
        self.role.tokens.add(token)
        self.answer(200, token, {_TTL: self.headers[_TTL]})

    def do_GET(self) -> None:
        if self.headers.get(_TOKEN) not in self.role.tokens:
            self.answer(401)  # also to a request as in IMDSv1, which has no token
        elif self.role.silent:
            self.answer(503)
        elif self.path == _ROLES:
            self.answer(200, ROLE)
        elif self.path == f"{_ROLES}{ROLE}":
            self.answer(200, json.dumps(self.role.current()))
        else:
            self.answer(404)

    def answer(self, status: int, text: str = "", headers: dict[str, str] | None = None) -> None:
        with self.role.lock:
            self.role.requests.append((self.command, self.path, status))
        body = text.encode()
        self.send_response(status)
        # botocore keeps a connection open for as long as its client lives, and no one closes it.
        for name, value in {"Connection": "close", "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
