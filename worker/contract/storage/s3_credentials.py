"""Credentials for S3 that change while the process runs.

Kubernetes, Vault and systemd write rotated secrets to the same files (`MASKMILL_SECRETS_DIR`), which are read again.
Keys of an instance role are renewed by botocore, by the clock: 15 minutes before they expire. Keys that live shorter,
or that are replaced early, are renewed when S3 refuses them. Keys that boto3 does not find at the start, because the
service of the role does not answer yet, are looked for until they are there. Keys of the environment stay as they are.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from botocore.credentials import Credentials, ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import CredentialRetrievalError

from worker.contract.settings import ENV_PREFIX, S3Settings

LOOK_SECONDS = 2.0
"""Time between two looks at the files, while requests are sent, and between two tries to renew refused keys."""

STILL_EXPIRED = "still expired"
"""Part of the text of the RuntimeError by which botocore reports that the keys it was given have expired."""

_FIELDS = ("access_key_id", "secret_access_key", "session_token")

_Marks = Mapping[str, tuple[int, int] | None]


class FileCredentials(Credentials):  # type: ignore[misc]  # botocore has no types
    """Keys that follow their files. Thread-safe."""

    def __init__(self, values: Mapping[str, str], folder: Path) -> None:
        """Use the values, which were read from the files of the folder.

        Args:
            values: by field; a session token may be missing.
            folder: holds one file per setting.
        """
        self._folder, self._lock = folder, threading.Lock()
        self._marks, self._looked = _marks(folder), time.monotonic()
        super().__init__(*(values.get(field) for field in _FIELDS), method="files")

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return the keys for one request; botocore calls it before each."""
        with self._lock:
            if time.monotonic() - self._looked >= LOOK_SECONDS:
                self._looked = time.monotonic()
                self._read_if_changed()
            return ReadOnlyCredentials(self.access_key, self.secret_key, self.token)

    def look(self) -> None:
        """Read the files if they have changed."""
        with self._lock:
            self._read_if_changed()

    def _read_if_changed(self) -> None:
        marks = _marks(self._folder)
        if marks == self._marks:
            return
        found = _read(self._folder)
        # In the middle of a change a file may be missing or empty: the next look finds it.
        if found.get("access_key_id") and found.get("secret_access_key"):
            self._marks = marks
            self.access_key, self.secret_key, self.token = (found.get(field) for field in _FIELDS)
            self._normalize()


class LateCredentials(Credentials):  # type: ignore[misc]  # botocore has no types
    """Keys that boto3 has not found yet, such as those of a role whose service is away. Thread-safe."""

    def __init__(self, load: Callable[[], Credentials | None]) -> None:
        """Look for nothing yet; `load` searches where boto3 finds keys."""
        self._load, self._lock = load, threading.Lock()
        self._looked = time.monotonic()
        self.found: Credentials | None = None
        """The keys; None as long as there are none."""
        super().__init__("", "", method="late")

    def get_frozen_credentials(self) -> ReadOnlyCredentials | None:
        """Return the keys for one request; None, at which botocore raises NoCredentialsError, without any."""
        with self._lock:
            if self.found is None and time.monotonic() - self._looked >= LOOK_SECONDS:
                self.found = self._load()
                self._looked = time.monotonic()
        return self.found and self.found.get_frozen_credentials()


class Renewal:
    """Fetches keys again after S3 has refused them. Thread-safe."""

    def __init__(self, credentials: Any) -> None:
        """Fetch nothing yet; the credentials are those of a boto3 session."""
        self._given, self._lock = credentials, threading.Lock()
        self._in_vain = float("-inf")
        self._last = self._now()
        self.changed_at = float("-inf")
        """When `keys` last returned others than before (`time.monotonic`)."""

    def keys(self) -> object:
        """Return the keys as they are now, to compare."""
        found = self._now()
        if found != self._last:
            self._last, self.changed_at = found, time.monotonic()
        return found

    @property
    def _credentials(self) -> Any:
        return self._given.found if isinstance(self._given, LateCredentials) else self._given

    def _now(self) -> object:
        if isinstance(self._credentials, RefreshableCredentials):
            return self._credentials._frozen_credentials  # the public method may ask the service
        return self._credentials and self._credentials.get_frozen_credentials()

    def renew(self, refused: object) -> bool:
        """Return whether there are other keys than those that S3 refused.

        Fetches them if need be; for `LOOK_SECONDS` after that was in vain, it does not try again.
        """
        with self._lock:
            if self.keys() == refused and time.monotonic() - self._in_vain >= LOOK_SECONDS:
                self._fetch()
                if self.keys() == refused:
                    self._in_vain = time.monotonic()
            return self.keys() != refused

    def _fetch(self) -> None:
        if isinstance(self._credentials, FileCredentials):
            self._credentials.look()
        elif isinstance(self._credentials, RefreshableCredentials):
            # Nothing public renews keys before their time.
            with self._credentials._refresh_lock:
                try:
                    self._credentials._protected_refresh(is_mandatory=False)
                except (CredentialRetrievalError, RuntimeError):  # no answer, or expired keys: the next try may do
                    return


def credentials_from_files(settings: S3Settings) -> FileCredentials | None:
    """Return credentials that follow the files of `MASKMILL_SECRETS_DIR`; None if the settings came from elsewhere."""
    folder = os.environ.get(f"{ENV_PREFIX}SECRETS_DIR")
    if not folder or not settings.access_key_id or not settings.secret_access_key:
        return None
    used = {field: getattr(settings, field) for field in _FIELDS}
    values = {field: secret.get_secret_value() for field, secret in used.items() if secret is not None}
    return FileCredentials(values, Path(folder)) if _read(Path(folder)) == values else None


def _files(folder: Path) -> dict[str, Path]:
    """Return the files of the fields; their names have no case."""
    wanted = {f"{ENV_PREFIX}s3__{field}".lower(): field for field in _FIELDS}
    try:
        return {wanted[path.name.lower()]: path for path in folder.iterdir() if path.name.lower() in wanted}
    except OSError:
        return {}


def _marks(folder: Path) -> _Marks:
    """Return what tells a file from its successor: a mounted secret is a link whose target is replaced."""
    found: dict[str, tuple[int, int] | None] = {}
    for field, path in _files(folder).items():
        try:
            status = path.stat()
            found[field] = status.st_mtime_ns, status.st_ino
        except OSError:
            found[field] = None
    return found


def _read(folder: Path) -> dict[str, str]:
    found = {}
    for field, path in _files(folder).items():
        try:
            found[field] = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            continue
    return {field: text for field, text in found.items() if text}
