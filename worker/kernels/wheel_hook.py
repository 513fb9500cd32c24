"""Build hook for hatchling: include the built kernels in the wheel if MASKMILL_WHEEL_KERNELS=1.

A plain `pip install` compiles nothing, so it needs no compiler. The platform tag follows PEP 600: `manylinux_X_Y` means
that GLIBC_X.Y is the newest symbol version of the C library that the wheel needs.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FOLDER = "worker/kernels/lib"
_LIBRARY = "libmaskmill_kernels.so"
_FACTS = "built.json"


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the library to the wheel, and sets the platform tag."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Extend `build_data`; hatchling calls this before it writes the wheel."""
        if version == "editable" or os.environ.get("MASKMILL_WHEEL_KERNELS") != "1":
            return
        folder = Path(self.root) / _FOLDER
        if not (folder / _FACTS).is_file():
            raise SystemExit("the kernels are not built: run `worker kernels build`, or unset MASKMILL_WHEEL_KERNELS")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag((folder / _LIBRARY).read_bytes())}"
        for name in (_LIBRARY, _FACTS):
            build_data["force_include"][str(folder / name)] = f"{_FOLDER}/{name}"


def platform_tag(library: bytes) -> str:
    """Return the platform tag for a shared library, from the symbol versions of the C library that it refers to.

    Raises:
        SystemExit: it refers to none.
    """
    needed = [(int(major), int(minor)) for major, minor in re.findall(rb"\0GLIBC_(\d+)\.(\d+)", library)]
    if not needed:
        raise SystemExit("the library refers to no symbol version of the C library: check that it was built for Linux")
    major, minor = max(*needed, (2, 17))
    return f"manylinux_{major}_{minor}_x86_64"
