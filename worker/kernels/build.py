"""Compile the kernels with CMake, against the headers and libraries inside the installed openvino wheel."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from worker.contract.errors import SetupError
from worker.kernels import library

_TIME_LIMIT_SECONDS = 900
_PROGRAMS = ("kernels_test", "kernels_bench")


@dataclass(frozen=True)
class Tools:
    """Absolute paths of the build tools; `ninja` is None if it is not installed."""

    cmake: str
    ninja: str | None
    compiler: str


def tools() -> Tools | str:
    """Return the build tools, or a sentence that names the missing one and how to install it."""
    if platform.machine() != "x86_64" or sys.platform != "linux":
        return f"the kernels need Linux on x86-64, this is {sys.platform} on {platform.machine()}"
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", "g++"), "c++", "clang++"))), None)
    if compiler is None:
        return "no C++ compiler: install g++ 11 or newer (Debian and Ubuntu: apt-get install g++)"
    beside = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    cmake = shutil.which("cmake", path=beside)
    if cmake is None:
        return "no cmake: pip install 'maskmill[kernels]'"
    return Tools(cmake, shutil.which("ninja", path=beside), compiler)


def up_to_date() -> bool:
    """Return whether the library in the package was built from these sources for this version of OpenVINO."""
    facts = library.FOLDER / library.FACTS
    if not facts.is_file() or not (library.FOLDER / library.LIBRARY).is_file():
        return False
    return bool(json.loads(facts.read_text("utf-8")) == _facts())


def build(*, strict: bool = False) -> Path:
    """Build the library into the package; an older one is replaced only when the build is complete.

    Args:
        strict: whether a compiler warning fails the build.

    Returns:
        Path of the library.

    Raises:
        SetupError: a tool is missing, the package folder is not writable, or the compiler failed.
    """
    found = _need_tools()
    target = library.FOLDER / library.LIBRARY
    try:
        library.FOLDER.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.FOLDER) as folder:
            options = [f"-DOpenVINO_DIR={_openvino() / 'cmake'}", f"-DKERNELS_STRICT={'ON' if strict else 'OFF'}"]
            _cmake(found, Path(folder), options, "maskmill_kernels")
            (Path(folder) / library.FACTS).write_text(json.dumps(_facts()), "utf-8")
            # The facts come last: a library without them is not used.
            (library.FOLDER / library.FACTS).unlink(missing_ok=True)
            (Path(folder) / library.LIBRARY).replace(target)
            (Path(folder) / library.FACTS).replace(library.FOLDER / library.FACTS)
    except OSError as error:
        raise SetupError(
            f"the kernels cannot be written to {library.FOLDER}: {error}; build as the user that installed the package"
        ) from error
    return target


def build_programs(folder: Path, *, sanitize: str = "", strict: bool = False) -> dict[str, Path]:
    """Build the test and the benchmark of the inner loops, which need no OpenVINO.

    Args:
        folder: build folder.
        sanitize: value of the compiler's `-fsanitize`, such as `address,undefined`; empty for none.
        strict: whether a compiler warning fails the build.

    Returns:
        Program name -> path.

    Raises:
        SetupError: a tool is missing, or the compiler failed.
    """
    options = [
        "-DKERNELS_EXTENSION=OFF",
        "-DKERNELS_TESTS=ON",
        f"-DKERNELS_STRICT={'ON' if strict else 'OFF'}",
        f"-DKERNELS_SANITIZE={sanitize}",
    ]
    _cmake(_need_tools(), folder, options, *_PROGRAMS)
    return {name: folder / name for name in _PROGRAMS}


def _need_tools() -> Tools:
    found = tools()
    if isinstance(found, str):
        raise SetupError(found)
    return found


def _cmake(found: Tools, folder: Path, options: list[str], *targets: str) -> None:
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={found.ninja}"] if found.ninja else []
    compiler = f"-DCMAKE_CXX_COMPILER={found.compiler}"
    _run([found.cmake, "-S", str(library.SOURCES), "-B", str(folder), compiler, *generator, *options])
    _run([found.cmake, "--build", str(folder), "--parallel", "--target", *targets])


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=_TIME_LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{' '.join(command)} took more than {_TIME_LIMIT_SECONDS} s") from error
    if done.returncode:
        raise SetupError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")


def _openvino() -> Path:
    """Folder of the installed openvino wheel, found without importing it."""
    spec = importlib.util.find_spec("openvino")
    if spec is None or not spec.submodule_search_locations:
        raise SetupError("OpenVINO is not installed: pip install 'maskmill[kernels]'")
    return Path(next(iter(spec.submodule_search_locations)))


def _facts() -> dict[str, str]:
    return {"openvino": importlib.metadata.version("openvino"), "sources": library.source_digest()}
