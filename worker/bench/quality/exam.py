"""An exam: photographs with true masks, as a folder.

    images/     photographs
    masks/      their true masks, with the same file names up to the suffix and the same size
    exam.json   optional: {"description": "...", "licence": "..."}, shown in reports

The digest of an exam covers names and bytes of all pictures and masks, so that scores of the same exam can be compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.contract.errors import SourceError
from worker.contract.settings import LimitSettings
from worker.convert.evaluate import pictures
from worker.model.format.manifest import sha256_of

FACTS = "exam.json"
IMAGES, MASKS = "images", "masks"


@dataclass(frozen=True)
class Exam:
    """Pictures and their true masks, in the same order."""

    name: str
    pictures: tuple[Path, ...]
    truths: tuple[Path, ...]
    digest: str
    """SHA-256 over the names and bytes of these pictures and masks."""
    description: str = ""
    licence: str = ""

    def truth(self, index: int, limits: LimitSettings) -> NDArray[np.uint8]:
        """Read a true mask: u8 `[h, w]`, 0 background, 255 subject.

        Raises:
            SourceError: see `worker.convert.evaluate.pictures.true_mask`.
        """
        return pictures.true_mask(self.pictures[index], self.truths[index], limits)


def load(folder: Path, name: str, count: int | None = None) -> Exam:
    """Read an exam.

    Args:
        folder: of the exam.
        name: shown in reports.
        count: only the first pictures, by file name; None for all.

    Raises:
        SourceError: a folder cannot be read or is empty, or a picture has no true mask.
    """
    found, _ = pictures.gather(folder / IMAGES, folder)
    found = found[:count]
    paired = pictures.true_masks(found, folder / MASKS)
    lacking = [path.name for index, path in enumerate(found) if index not in paired]
    if lacking:
        raise SourceError(
            f"{folder / MASKS} lacks the true masks of {len(lacking)} of {len(found)} pictures, such as {lacking[0]}; "
            "add them, or remove the pictures"
        )
    truths = [paired[index] for index in range(len(found))]
    facts = _facts(folder / FACTS)
    return Exam(
        name,
        tuple(found),
        tuple(truths),
        _digest([*found, *truths]),
        facts.get("description", ""),
        facts.get("licence", ""),
    )


def write_facts(folder: Path, description: str, licence: str) -> None:
    """Write `exam.json`."""
    text = json.dumps({"description": description, "licence": licence}, indent=1, ensure_ascii=False)
    (folder / FACTS).write_text(f"{text}\n", "utf-8")


def _facts(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read as JSON: {error}; correct or remove it") from error
    if not isinstance(facts, dict):
        raise SourceError(f"{path} must hold one JSON object; correct or remove it")
    return {str(key): str(value) for key, value in facts.items()}


def _digest(files: Sequence[Path]) -> str:
    whole = hashlib.sha256()
    for path in files:
        whole.update(f"{path.parent.name}/{path.name} {sha256_of(path)}\n".encode())
    return whole.hexdigest()
