from __future__ import annotations

from producer.cli.not_copied import SHOWN, NotCopied


def test_the_first_outputs_are_named_and_all_are_counted(capsys):
    found = NotCopied()
    for number in range(SHOWN + 3):
        found.add(f"[b]{number}.png", "a key that cannot be a file")
    found.close()

    said = capsys.readouterr().err.splitlines()
    assert said[0] == "not copied: [b]0.png: a key that cannot be a file"
    assert said[SHOWN:] == ["and 3 more were not copied"]
    assert (found.count, len(found.named)) == (SHOWN + 3, SHOWN)


def test_nothing_is_said_about_a_complete_copy(capsys):
    NotCopied().close()

    assert capsys.readouterr().err == ""
