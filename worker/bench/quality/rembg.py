"""Masks by rembg with the same weights, from an environment and a process apart.

    cache/rembg-2.0.86/            a virtual environment with rembg and its dependencies, made at the first use
    U2NET_HOME = a scratch folder  where rembg finds the weights under the name that it expects, so it downloads none

rembg's packages would replace some of those in this installation, so it is never installed here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from worker.bench.harness import peer_environment
from worker.bench.harness.process import tail
from worker.contract.errors import SetupError
from worker.cpu.kernel import format_cpu_list

VERSION = "2.0.86"
REQUIREMENT = f"rembg[cpu,cli]=={VERSION}"
CHILD = Path(__file__).with_name("rembg_child.py")

_RUN_SECONDS = 7200
"""Time-out."""


_NO_DOWNLOADS = "http://127.0.0.1:9"
"""A proxy that does not exist: rembg fails instead of downloading weights that were not asked for."""


@dataclass(frozen=True)
class RembgNetwork:
    """A network of rembg and its weights."""

    session: str
    """rembg's name of the network, such as u2netp or isnet-general-use."""
    weights: Path
    """The ONNX file."""

    @classmethod
    def parse(cls, text: str) -> RembgNetwork:
        """Return the network of `SESSION=FILE`.

        Raises:
            ValueError: the text has another form, or the file does not exist.
        """
        session, equals, file = text.partition("=")
        if not (session and equals and file):
            raise ValueError(f"{text!r} is not SESSION=FILE, such as u2netp=/models/u2netp.onnx")
        weights = Path(file).expanduser()
        if not weights.is_file():
            raise ValueError(f"{weights} is not a file; give the ONNX file of {session}")
        return cls(session, weights.absolute())


@dataclass(frozen=True)
class RembgRun:
    """Facts of a run."""

    seconds: float
    """Median time per picture: resize, network, resize."""
    peak_mib: int
    versions: dict[str, str]


def interpreter(cache: Path) -> Path:
    """Return the Python of rembg's environment; make the environment if it is missing.

    Args:
        cache: folder for it.

    Raises:
        SetupError: it cannot be made.
    """
    # The import compiles parts of its dependencies, for minutes on a slow CPU.
    return peer_environment.interpreter(cache, f"rembg-{VERSION}", [REQUIREMENT], "rembg")


def run(
    network: RembgNetwork, pictures: tuple[Path, ...], output: Path, cache: Path, cpus: tuple[int, ...]
) -> RembgRun:
    """Write rembg's masks of some pictures.

    Args:
        network: which network, with which weights.
        pictures: files.
        output: folder for the masks: `{index}.npy`, u8 `[h, w]` at the size of the picture.
        cache: folder of rembg's environment.
        cpus: CPUs of the process; it computes with as many threads.

    Raises:
        SetupError: rembg cannot be installed, or fails.
    """
    python = interpreter(cache)
    output.mkdir(parents=True, exist_ok=True)
    request = {
        "session": network.session,
        "pictures": [str(path.absolute()) for path in pictures],
        "output": str(output),
    }
    log = output / "rembg.log"
    with log.open("wb") as printed:
        try:
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "worker.bench.harness.pin_exec",
                    format_cpu_list(cpus),
                    str(python),
                    "-P",
                    str(CHILD),
                ],
                input=json.dumps(request).encode(),
                stdout=subprocess.PIPE,
                stderr=printed,
                env=environment(network, output / "weights", cpus),
                timeout=_RUN_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SetupError(
                f"rembg {network.session} did not finish in {_RUN_SECONDS} s; use fewer pictures"
            ) from error
    if done.returncode:
        raise SetupError(f"rembg {network.session} failed with exit status {done.returncode}: {tail(log)}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return RembgRun(answer["seconds"], answer["peak_mib"], answer["versions"])


def environment(network: RembgNetwork, home: Path, cpus: tuple[int, ...]) -> dict[str, str]:
    """Return the environment of a process that finds the weights, downloads none and uses these CPUs.

    Args:
        network: rembg's name of the network, and the weights.
        home: folder for a link to the weights; created.
        cpus: as many threads compute.
    """
    home.mkdir(parents=True, exist_ok=True)
    link = home / f"{network.session}.onnx"
    link.unlink(missing_ok=True)
    link.symlink_to(network.weights)
    return {
        **os.environ,
        "U2NET_HOME": str(home),
        "OMP_NUM_THREADS": str(len(cpus)),
        **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), _NO_DOWNLOADS),
        "PYTHONPATH": "",
    }
