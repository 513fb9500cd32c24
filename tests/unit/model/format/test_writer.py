"""Atomic publication of a bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.contract.errors import BundleError
from worker.model.format import writer


def bundle(folder: Path, content: str) -> Path:
    folder.mkdir()
    (folder / "manifest.json").write_text(content)
    return folder


def test_the_folder_appears_at_its_destination_at_the_end(tmp_path):
    with writer.staged(tmp_path / "new" / "bundle") as made:
        (made / "manifest.json").write_text("{}")
        assert not (tmp_path / "new" / "bundle").exists()

    assert (tmp_path / "new" / "bundle" / "manifest.json").read_text() == "{}"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["bundle"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), BundleError("no"), OSError("disk full")])
def test_any_interruption_leaves_the_old_bundle_unchanged(tmp_path, error):
    dest = bundle(tmp_path / "bundle", "old")

    with pytest.raises(BundleError if isinstance(error, OSError) else type(error)), writer.staged(dest) as made:
        (made / "manifest.json").write_text("new")
        raise error

    assert (dest / "manifest.json").read_text() == "old"
    assert list(tmp_path.iterdir()) == [dest]


def test_an_interruption_between_the_two_renames_restores_the_old_bundle(tmp_path, monkeypatch):
    dest = bundle(tmp_path / "bundle", "old")
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if target == dest and not path.name.endswith(".old"):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), writer.staged(dest) as made:
        (made / "manifest.json").write_text("new")

    assert (dest / "manifest.json").read_text() == "old"
    assert list(tmp_path.iterdir()) == [dest]
