"""Match keys against globs, with the meaning that shells and S3 tools share.

`*` and `?` stay within one folder, `**` crosses folders, `[abc]` and `[!abc]` match one character, `{jpg,png}` matches
one of several words. A wildcard in brackets is literal: `[*]`. Case matters, except in a literal suffix: `*.jpg` and
`*.{jpg,png}` match `A.JPG` too, as cameras name their files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_SPECIAL = re.compile(r"[*?[]|\{[^{}/]*,[^{}/]*\}")
_TOKEN = re.compile(
    r"""
    (?P<folders>(?:^|(?<=/))\*\*/)      # any number of folders, including none
  | (?P<deep>\*\*+)
  | (?P<star>\*)
  | (?P<one>\?)
  | \[(?P<not>[!^]?)(?P<set>\]?[^]/]*)\]
  | \{(?P<braces>[^{}/]*,[^{}/]*)\}
    """,
    re.VERBOSE | re.DOTALL,
)


_SUFFIX = re.compile(r"(.*\.)([A-Za-z0-9]+|\{[A-Za-z0-9.,]+\})", re.DOTALL)
"""A pattern whose last suffix has no wildcard: what comes before the suffix, and the suffix."""


def is_glob(text: str) -> bool:
    """Return whether `text` contains a wildcard."""
    return _SPECIAL.search(text) is not None


def literal_folder(pattern: str) -> tuple[str, str]:
    """Return the longest part without wildcards: a folder (with its slash, or empty) and how names in it begin."""
    special = _SPECIAL.search(pattern)
    literal = pattern[: special.start()] if special else pattern
    folder, slash, beginning = literal.rpartition("/")
    return folder + slash, beginning


def to_regex(pattern: str) -> str:
    """Return the regular expression that a whole key must match (with DOTALL)."""
    parts, end = [], 0
    for token in _TOKEN.finditer(pattern):
        parts += [re.escape(pattern[end : token.start()]), _translated(token)]
        end = token.end()
    return "".join(parts) + re.escape(pattern[end:])


def _to_key_regex(pattern: str) -> str:
    """Return the same, with a literal suffix in any case."""
    found = _SUFFIX.fullmatch(pattern)
    return to_regex(found[1]) + f"(?i:{to_regex(found[2])})" if found else to_regex(pattern)


def _translated(token: re.Match[str]) -> str:
    if token["folders"]:
        return "(?:.*/)?"
    if token["deep"]:
        return ".*"
    if token["star"]:
        return "[^/]*"
    if token["one"]:
        return "[^/]"
    if token["braces"]:
        return f"(?:{'|'.join(to_regex(choice) for choice in token['braces'].split(','))})"
    return _character_set(token["set"], negated=bool(token["not"]))


def _character_set(content: str, *, negated: bool) -> str:
    if not content:
        return re.escape("[!]" if negated else "[]")
    # A range that runs backwards, which `re` refuses, matches nothing, as in a shell.
    for first, last in re.findall(r"(.)-(.)", content, re.DOTALL):
        if first > last:
            return "(?!)"
    escaped = re.sub(r"([\\\[\]&~|^]|^-)", r"\\\1", content)
    return f"[^/{escaped}]" if negated else f"[{escaped}]"


def matcher(patterns: Sequence[str], *, ignore_case: bool = False) -> Callable[[str], bool]:
    """Return a function that tests whether a key matches any of the patterns.

    A pattern without a slash matches names in any folder. A pattern with a slash matches the whole key, relative to
    the source; a leading slash only anchors it (`/*.jpg`: not in sub-folders). With `ignore_case`, upper and lower
    case are equal everywhere.
    """
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else re.NOFLAG)
    of_names = [_to_key_regex(pattern) for pattern in patterns if "/" not in pattern]
    of_keys = [_to_key_regex(pattern.removeprefix("/")) for pattern in patterns if "/" in pattern]
    names = re.compile("|".join(f"(?:{one})" for one in of_names) or "(?!)", flags)
    keys = re.compile("|".join(f"(?:{one})" for one in of_keys) or "(?!)", flags)

    def matches(key: str) -> bool:
        return names.fullmatch(key.rpartition("/")[2]) is not None or keys.fullmatch(key) is not None

    return matches
