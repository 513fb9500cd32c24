"""Create a certificate authority, and certificates signed by it, with openssl."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Certificates:
    """An authority, and a server certificate (localhost, 127.0.0.1) and a client certificate that it signed."""

    authority: Path
    server: Pair
    client: Pair
    unrelated: Path
    """An authority that signed none of them."""

    @classmethod
    def make(cls, folder: Path) -> Self:
        """Create all of them in a new folder. Takes about 0.1 s; skips the test without openssl."""
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed, so no certificates can be created")
        folder.mkdir(parents=True)
        authority, unrelated = (_authority(folder, name) for name in ("ca", "unrelated"))
        names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
        return cls(
            authority.certificate,
            _signed(folder, authority, "server", f"{names}\nextendedKeyUsage=serverAuth"),
            _signed(folder, authority, "client", "extendedKeyUsage=clientAuth"),
            unrelated.certificate,
        )


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _authority(folder: Path, name: str) -> Pair:
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    _openssl(
        "req",
        "-x509",
        *_KEY,
        "-days",
        "2",
        "-subj",
        f"/CN={name}",
        *usage,
        "-keyout",
        pair.key,
        "-out",
        pair.certificate,
    )
    return pair


def _signed(folder: Path, authority: Pair, name: str, extensions: str) -> Pair:
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    request, more = folder / f"{name}.csr", folder / f"{name}.ext"
    more.write_text(f"{extensions}\n")
    _openssl("req", *_KEY, "-subj", f"/CN={name}", "-keyout", pair.key, "-out", request)
    signed_by = ("-CA", authority.certificate, "-CAkey", authority.key, "-CAcreateserial", "-days", "2")
    _openssl("x509", "-req", "-in", request, *signed_by, "-extfile", more, "-out", pair.certificate)
    return pair


def _openssl(*args: object) -> None:
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)
