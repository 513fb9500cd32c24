"""Several hosts on one machine: network namespaces on a bridge. Needs root and iproute2.

The bridge has its own namespace too, so the network of the machine does not change. The hosts share the file system;
only their TCP traffic can be partitioned.
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


class HostNetwork:
    """A network of hosts: `with HostNetwork.open(["store", "one"]) as network:`."""

    def __init__(self, hosts: Sequence[str]) -> None:
        """Choose names and addresses; `open` creates the namespaces."""
        tag = secrets.token_hex(2)
        self._switch = f"mm{tag}sw"
        self._spaces = {host: f"mm{tag}h{number}" for number, host in enumerate(hosts)}
        self.addresses = {host: f"10.99.0.{number}" for number, host in enumerate(hosts, 1)}

    @staticmethod
    def unavailable() -> str | None:
        """Return why this machine cannot create the network; None if it can."""
        if os.geteuid() != 0:
            return "network namespaces need root"
        if shutil.which("ip") is None or shutil.which("unshare") is None:
            return "iproute2 or util-linux is not installed"
        name = f"mm{secrets.token_hex(3)}"
        tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
        if tried.returncode:
            return f"cannot create a network namespace: {tried.stderr.strip()}"
        subprocess.run(["ip", "netns", "del", name], check=True)
        return None

    @classmethod
    @contextlib.contextmanager
    def open(cls, hosts: Sequence[str]) -> Iterator[HostNetwork]:
        """Connect all hosts to one bridge; delete everything at the end of the block."""
        network = cls(hosts)
        try:
            network._build()
            yield network
        finally:
            for space in [*network._spaces.values(), network._switch]:
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
        """Disconnect a host: packets are dropped, without an error on either side."""
        _ip("-n", self._switch, "link", "set", f"p{self._spaces[host]}", "down")

    def heal(self, host: str) -> None:
        """Connect a host again."""
        _ip("-n", self._switch, "link", "set", f"p{self._spaces[host]}", "up")

    @contextlib.contextmanager
    def inside(self, host: str) -> Iterator[None]:
        """Move this thread to a host: its connections and the processes it starts belong there."""
        with Path("/proc/thread-self/ns/net").open() as before:
            with Path(f"/run/netns/{self._spaces[host]}").open() as space:
                _setns(space.fileno())
            try:
                yield
            finally:
                _setns(before.fileno())

    @staticmethod
    def with_hostname(host: str, argv: Sequence[str]) -> list[str]:
        """Return the command line that runs `argv` under the host name `host`, in the same process."""
        return ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', host, *argv]


def _setns(space: int) -> None:
    if _libc.setns(space, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True)
