"""The naming template of outputs, which turns `shoes/1.jpg` into `cutout/shoes/1.webp`.

{dir}    folder of the input's key without the slash; for a key without a folder, `{dir}/` is dropped
{name}   file name with its suffix, `1.jpg`
{stem}   file name without its suffix, `1`
{kind}   kind of output: mask, cutout, composite
{ext}    file extension of the output's format: png, webp, avif, jpg
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

JOB_PREFIX = "_maskmill/"
"""Folder under a job's destination for everything about the job besides its outputs."""

BEHIND_JOBS = f"{JOB_PREFIX[:-1]}0"
"""Sorts after every key under `JOB_PREFIX` and before all later keys: `0` follows `/`."""

FIELDS = ("dir", "name", "stem", "kind", "ext")
ONE_KIND = "{dir}/{stem}.{ext}"
SEVERAL_KINDS = "{kind}/{dir}/{stem}.{ext}"

_SEPARATE = re.compile(r"\{kind\}/.*|.*[-_./]\{kind\}\.\{ext\}", re.DOTALL)


def check(template: str, kinds: Sequence[str], extensions: Sequence[str]) -> None:
    """Check that a template gives every output of a job a valid key of its own.

    Args:
        template: the naming template, as typed.
        kinds: the kinds of output, in order.
        extensions: the file extension of each kind.

    Raises:
        ValueError: it does not. The text gives the reason and the remedy.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"naming template {template!r}: {error}; write literal braces as {{{{ and }}}}") from error
    fields = [field for _, field, _, _ in parts if field is not None]
    if unknown := sorted({field for field in fields if field not in FIELDS}):
        known = " ".join(f"{{{field}}}" for field in FIELDS)
        raise ValueError(f"naming template {template!r}: no such field {unknown[0]!r}; there are {known}")
    if any(spec or conversion for _, _, spec, conversion in parts):
        raise ValueError(f"naming template {template!r}: fields take no format; write {{stem}}")
    if not {"stem", "name"} & set(fields):
        raise ValueError(f"naming template {template!r}: without {{stem}} or {{name}}, all images would share one key")
    samples = [output_key(template, "dir/name.jpg", kind, ext) for kind, ext in zip(kinds, extensions, strict=True)]
    if len(set(samples)) < len(samples):
        raise ValueError(f"naming template {template!r}: {' and '.join(kinds)} would share one key; add {{kind}}")
    for sample in samples:
        if sample.startswith(("/", JOB_PREFIX)) or sample.endswith("/") or {"", ".", ".."} & set(_parts(sample)):
            raise ValueError(
                f"naming template {template!r} gives {sample!r}: keys are relative to the destination, "
                f"without empty, '.' or '..' parts, and {JOB_PREFIX} is reserved"
            )


def _parts(key: str) -> list[str]:
    return key.split("/")


def output_key(template: str, key: str, kind: str, ext: str) -> str:
    """Return the key of an output, relative to the destination, for the input `key`, relative to the source."""
    # Not PurePosixPath: it turns `a//b` and `a/./b` into `a/b`, but S3 treats these as different keys.
    folder, slash, name = key.rpartition("/")
    if not slash:
        template = template.replace("{dir}/", "")
    return template.format(dir=folder, name=name, stem=name.rpartition(".")[0] or name, kind=kind, ext=ext)


def separates_kinds(template: str) -> bool:
    """Return whether outputs of different kinds never share a key, for any input keys."""
    return _SEPARATE.fullmatch(template) is not None
