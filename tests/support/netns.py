"""Hosts of a network of their own, on one machine: network namespaces on a bridge. Needs root and iproute2.

The bridge lives in a namespace too, so the network of the machine is not touched. Hosts share the file system, so
partitions hold for what goes over TCP.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Lab:
    """`with Lab.open(["store", "one"]) as lab:`; or `Lab.why_not()` says why it cannot be had here."""

    def __init__(self, hosts: Sequence[str]) -> None:
        """Nothing is made yet."""
        tag = secrets.token_hex(2)
        self._switch = f"mm{tag}sw"
        self._spaces = {host: f"mm{tag}h{number}" for number, host in enumerate(hosts)}
        self.addresses = {host: f"10.99.0.{number}" for number, host in enumerate(hosts, 1)}

    @staticmethod
    def why_not() -> str | None:
        """What is missing here, None if nothing is."""
        if os.geteuid() != 0:
            return "network namespaces need root"
        if shutil.which("ip") is None or shutil.which("unshare") is None:
            return "iproute2 or util-linux is not installed"
        name = f"mm{secrets.token_hex(3)}"
        tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
        if tried.returncode:
            return f"no network namespace can be made here: {tried.stderr.strip()}"
        subprocess.run(["ip", "netns", "del", name], check=True)
        return None

    @classmethod
    @contextlib.contextmanager
    def open(cls, hosts: Sequence[str]) -> Iterator[Lab]:
        """All hosts, on one bridge."""
        lab = cls(hosts)
        try:
            lab._build()
            yield lab
        finally:
            for space in [*lab._spaces.values(), lab._switch]:
                subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)

    def _build(self) -> None:
        for space in [self._switch, *self._spaces.values()]:
            _ip("netns", "add", space)
            _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", self._switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "br0", "up")
        for host, space in self._spaces.items():
            own, port = f"v{space}", f"p{space}"
            _ip("link", "add", own, "netns", space, "type", "veth", "peer", "name", port, "netns", self._switch)
            _ip("-n", space, "addr", "add", f"{self.addresses[host]}/24", "dev", own)
            _ip("-n", space, "link", "set", own, "up")
            _ip("-n", self._switch, "link", "set", port, "master", "br0", "up")

    def cut(self, host: str) -> None:
        """Its cable is pulled: silence, nobody is told."""
        _ip("-n", self._switch, "link", "set", f"p{self._spaces[host]}", "down")

    def heal(self, host: str) -> None:
        """The cable is back."""
        _ip("-n", self._switch, "link", "set", f"p{self._spaces[host]}", "up")

    @contextlib.contextmanager
    def inside(self, host: str) -> Iterator[None]:
        """What this thread connects to, and whom it starts, is on that host."""
        with Path("/proc/thread-self/ns/net").open() as before:
            with Path(f"/run/netns/{self._spaces[host]}").open() as there:
                _setns(there.fileno())
            try:
                yield
            finally:
                _setns(before.fileno())

    @staticmethod
    def named(host: str, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` under a host name of its own; the process id stays."""
        return ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', host, *argv]


def _setns(space: int) -> None:
    if _libc.setns(space, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True)
