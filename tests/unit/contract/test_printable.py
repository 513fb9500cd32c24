"""Names are data: no character of a key or a message moves the cursor, starts a line or turns the text around."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from worker.contract.console import SafeConsole
from worker.contract.printable import printable

HOSTILE = "a\x1b]0;title\x07\x1b[2Jb\r\nevent=x\x85\x9b31m\u202egpj.exe\u2028\u2066\ud800.jpg"


def test_unsafe_characters_become_escapes():
    safe = printable(HOSTILE)

    assert safe == ("a\\x1b]0;title\\x07\\x1b[2Jb\\r\\nevent=x\\x85\\x9b31m\\u202egpj.exe\\u2028\\u2066\\ud800.jpg")
    assert safe.isprintable() and safe.encode()


@pytest.mark.parametrize("text", ["chair.jpg", "стул 椅子 كرسي.png", "a\xa0b", "👩\u200d🚀.jpg", "कि\u200cती", ""])
def test_other_text_stays(text):
    assert printable(text) == text


def test_no_text_of_a_console_reaches_the_terminal_raw():
    file = io.StringIO()
    console = SafeConsole(file=file, width=400, force_terminal=True, color_system=None)
    table = Table(title=HOSTILE, caption=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)

    console.print(HOSTILE, markup=False)
    console.print(f"[bold]{HOSTILE}[/]", soft_wrap=True)
    console.print(table)

    shown = file.getvalue()
    for char in ("\x1b]", "\x1b[2J", "\x07", "\r", "\x85", "\x9b", "\u202e", "\u2028", "\u2066", "\ud800"):
        assert char not in shown, ascii(char)
    assert shown.count("\\x1b]0;title") >= 4
