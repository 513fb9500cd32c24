"""Text that is safe on a terminal and in a log line: keys and messages of others may hold anything.

Escape sequences could change what a terminal shows or does, a line break could forge a line of a log, and controls of
the writing direction could show a name other than it is.
"""

from __future__ import annotations

import unicodedata

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of Unicode (UAX 44): controls, format characters, lone surrogates, separators of lines and paragraphs."""

_JOINERS = frozenset("\u200c\u200d")
"""Format characters that scripts and emoji need, and that move nothing."""


def printable(text: str, keep: str = "") -> str:
    r"""Return a text with unsafe characters as Python escapes, such as `\x1b` or `\u202e`.

    Args:
        text: any text.
        keep: characters to leave as they are, such as a line break.
    """
    if text.isprintable():
        return text
    return "".join(ascii(char)[1:-1] if char not in keep and _is_unsafe(char) else char for char in text)


def _is_unsafe(char: str) -> bool:
    return unicodedata.category(char) in _UNSAFE and char not in _JOINERS


def is_utf8(text: str) -> bool:
    """Return whether a text can be written as UTF-8. Names of files and escapes in JSON may hold lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
