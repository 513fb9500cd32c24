"""The address of a Redis behind Sentinels: `sentinel://host1:26379,host2:26379,host3:26379/PRIMARY/DATABASE`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_PORT = 26379

SCHEMES = ("sentinel", "sentinels")
"""Without TLS, and with TLS to the Sentinels and to the data servers."""

FORM = "sentinel://host1:26379,host2:26379,host3:26379/PRIMARY"

_PRIMARY = re.compile(r"[A-Za-z0-9._-]+")
"""Names that Sentinel accepts in `sentinel monitor NAME`."""

_MAX_DATABASE = 65535


@dataclass(frozen=True)
class SentinelAddress:
    """Where to ask for the primary, and under which name."""

    hosts: tuple[tuple[str, int], ...]
    primary: str
    """Name of the primary in the configuration of the Sentinels."""

    database: int = 0
    tls: bool = False


def is_sentinel(url: str) -> bool:
    """Return whether a URL has a scheme of Sentinel."""
    return url.partition("://")[0] in SCHEMES


def parse(url: str) -> SentinelAddress:
    """Return the parts of a URL.

    Raises:
        ValueError: it has another form. The text never quotes the URL, which may contain a password by mistake.
    """
    scheme, _, rest = url.partition("://")
    servers, _, path = rest.partition("/")
    if scheme not in SCHEMES or not servers:
        raise ValueError(f"must look like {FORM}")
    if "@" in servers:
        raise ValueError(
            "must not contain credentials: set MASKMILL_REDIS__USERNAME and MASKMILL_REDIS__PASSWORD for the data "
            "servers, MASKMILL_REDIS__SENTINEL_USERNAME and MASKMILL_REDIS__SENTINEL_PASSWORD for the Sentinels"
        )
    primary, _, database = path.partition("/")
    if not _PRIMARY.fullmatch(primary):
        raise ValueError(f"must end with the name of the primary that the Sentinels monitor, like {FORM}")
    if database and not (database.isascii() and database.isdigit() and int(database) <= _MAX_DATABASE):
        raise ValueError(f"must have nothing but the number of a database after the name of the primary: {FORM}/0")
    hosts = tuple(_host(server) for server in servers.split(","))
    if len(set(hosts)) < len(hosts):
        raise ValueError("names a Sentinel twice")
    return SentinelAddress(hosts, primary, int(database or 0), tls=scheme == "sentinels")


def _host(server: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{server}")
        host, port = parts.hostname, parts.port
    except ValueError:  # the port is no number, or an IPv6 address has no end
        host, port = None, None
    if not host or parts.path or parts.query or parts.fragment or any(c.isspace() or c == ";" for c in server):
        raise ValueError(f"must list the Sentinels as host:port, separated by commas: {FORM}")
    return host, DEFAULT_PORT if port is None else port
