"""A model hub on the loopback: the Hugging Face protocol for listing, downloading, resuming and refusals."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE_FROM = 64
"""Size in bytes from which a file is stored outside of git, with a SHA-256."""

_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(/revision/(?P<revision>.+)|/tree/(?P<tree>.+))?")
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass
class Request:
    """One request of a client."""

    method: str
    path: str
    host: str
    range: str
    authorization: str
    user_agent: str


@dataclass
class Hub:
    """The server's state. Tests change it between requests."""

    url: str = ""
    commits: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    branches: dict[tuple[str, str], str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    token: str = ""
    """Token that gated repositories require."""
    status: int = 0
    """If not 0, the status of every answer."""
    cuts: list[int] = field(default_factory=list)
    """Bytes after which the next downloads break off, one entry for each download."""
    served: dict[str, bytes] = field(default_factory=dict)
    """File name -> bytes that the server sends in place of those it describes."""
    ranges: bool = True
    requests: list[Request] = field(default_factory=list)

    def publish(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Create a commit on a branch and return its id."""
        commit = hashlib.sha256(repr((repo, branch, sorted(files.items()))).encode()).hexdigest()[:40]
        self.commits[repo, commit] = dict(files)
        self.branches[repo, branch] = commit
        return commit

    def find(self, repo: str, revision: str) -> str | None:
        commit = self.branches.get((repo, revision), revision)
        return commit if (repo, commit) in self.commits else None

    def downloads(self) -> list[str]:
        """Return the names of the files that were downloaded, in order."""
        return [r.path.rpartition("/cdn/")[2] for r in self.requests if r.path.startswith("/cdn/")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = self.headers
        self.hub.requests.append(
            Request(
                self.command,
                path,
                headers.get("Host", ""),
                headers.get("Range", ""),
                headers.get("Authorization", ""),
                headers.get("User-Agent", ""),
            )
        )
        if self.hub.status:
            self._refuse(self.hub.status, "")
        elif path.startswith("/cdn/"):
            self._bytes(path.removeprefix("/cdn/"))
        elif match := _API.fullmatch(path):
            self._info(match["repo"], match["revision"] or match["tree"] or "main", tree=bool(match["tree"]))
        elif match := _RESOLVE.fullmatch(path):
            self._resolve(match["repo"], match["revision"], match["name"])
        else:
            self._refuse(404, "")

    do_HEAD = do_GET

    def _files(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        hub = self.hub
        if repo in hub.gated and (not hub.token or self.headers.get("Authorization") != f"Bearer {hub.token}"):
            self._refuse(401, "GatedRepo")
            return None
        if not any(known == repo for known, _ in hub.commits):
            self._refuse(404, "RepoNotFound")
            return None
        commit = hub.find(repo, revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound")
            return None
        return commit, hub.commits[repo, commit]

    def _info(self, repo: str, revision: str, *, tree: bool) -> None:
        if found := self._files(repo, revision):
            commit, files = found
            facts = [_described(name, data, tree=tree) for name, data in files.items()]
            self._json(facts if tree else {"id": repo, "modelId": repo, "sha": commit, "siblings": facts})

    def _resolve(self, repo: str, revision: str, name: str) -> None:
        found = self._files(repo, revision)
        if found is None:
            return
        commit, files = found
        if name not in files:
            self._refuse(404, "EntryNotFound")
            return
        data = files[name]
        large = len(data) >= LARGE_FROM
        etag = hashlib.sha256(data).hexdigest() if large else git_sha1(data)
        port = self.server.server_address[1]
        self._send(
            302,
            b"",
            {
                "Location": f"http://localhost:{port}/cdn/{repo}/{commit}/{name}",  # another host, like the real hub
                "X-Repo-Commit": commit,
                "ETag": f'"{etag}"',
                **({"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(len(data))} if large else {}),
            },
        )

    def _bytes(self, path: str) -> None:
        owner, repo, commit, name = path.split("/", 3)
        data = self.hub.served.get(name, self.hub.commits[f"{owner}/{repo}", commit][name])
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and self.hub.ranges else 0
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        self._send(206 if start else 200, data[start:], headers, cut=True)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code} if code else {})

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        self.send_response(status)
        # One connection for each request, so that no old connection reaches a stopped server.
        for name, value in (headers | {"Content-Length": str(len(body)), "Connection": "close"}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut and self.hub.cuts:
            body = body[: self.hub.cuts.pop(0)]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def _described(name: str, data: bytes, *, tree: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"size": len(data)}
    facts |= {"type": "file", "path": name, "oid": git_sha1(data)} if tree else {"rfilename": name}
    if not tree:
        facts["blobId"] = git_sha1(data)
    if len(data) >= LARGE_FROM:
        sha = hashlib.sha256(data).hexdigest()
        facts["lfs"] = {"sha256": sha, "oid": sha, "size": len(data), "pointerSize": 134}
    return facts


class RunningHub:
    """A context manager that runs the server on a free port, in threads of this process."""

    def __init__(self) -> None:
        self.hub = Hub()
        handler = type("Handler", (_Handler,), {"hub": self.hub})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.hub.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Hub:
        self._thread.start()
        return self.hub

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Refuse connections from now on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
