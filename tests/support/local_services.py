"""Processes of services on this machine: find them, and assert that none is left."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil

from support import commands
from worker.standalone import ports


def using(state: Path) -> list[psutil.Process]:
    """Return the processes whose command line, environment or working directory contains this state folder."""
    found = []
    names = {str(state), f"XDG_CACHE_HOME={state.parents[1]}"}
    for process in psutil.process_iter():
        try:
            variables = [f"{name}={value}" for name, value in process.environ().items()]
            text = "\n".join([*process.cmdline(), *variables, process.cwd()])
            if process.pid != os.getpid() and any(name in text for name in names):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def assert_all_gone(state: Path) -> None:
    """Wait until no process uses the state folder, and no server listens on its ports."""
    commands.wait_for(lambda: not using(state), f"all processes to end, left: {using(state)}", 15)
    if (state / "ports.json").exists():
        for name, port in json.loads((state / "ports.json").read_text()).items():
            assert ports.is_free(port), f"{name} still listens on {port}"
