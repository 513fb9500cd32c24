"""Build hook of hatchling: takes the built kernels into the wheel, if asked to by MASKMILL_WHEEL_KERNELS=1.

A plain `pip install` compiles nothing, so it can't fail for lack of a compiler. The platform tag follows PEP 600:
`manylinux_X_Y` promises that the newest symbol version needed of the C library is GLIBC_X.Y.
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
    """Adds the library, and says for which platform the wheel is."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it writes the wheel."""
        if version == "editable" or os.environ.get("MASKMILL_WHEEL_KERNELS") != "1":
            return
        folder = Path(self.root) / _FOLDER
        if not (folder / _FACTS).is_file():
            raise SystemExit("the kernels are not built: worker kernels build")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag((folder / _LIBRARY).read_bytes())}"
        for name in (_LIBRARY, _FACTS):
            build_data["force_include"][str(folder / name)] = f"{_FOLDER}/{name}"


def platform_tag(library: bytes) -> str:
    """The tag for a shared library, from the versions of the C library's symbols that it names."""
    needed = [(int(major), int(minor)) for major, minor in re.findall(rb"\0GLIBC_(\d+)\.(\d+)", library)]
    if not needed:
        raise SystemExit("the library names no version of the C library: is it built for Linux?")
    major, minor = max(*needed, (2, 17))
    return f"manylinux_{major}_{minor}_x86_64"
