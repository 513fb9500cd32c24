"""Finding the library, and failures of the build."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from worker.cli.kernels import kernels_command
from worker.contract.errors import SetupError
from worker.kernels import build, library
from worker.kernels.library import Library, Missing


def put(folder, version: str) -> None:
    (folder / library.LIBRARY).write_bytes(b"code")
    (folder / library.FACTS).write_text(json.dumps({"openvino": version, "sources": "0"}))


def test_a_library_for_this_openvino_is_found(tmp_path):
    put(tmp_path, "2026.4.1")

    found = library.find("2026.4.1", tmp_path)

    assert isinstance(found, Library) and found.path == tmp_path / library.LIBRARY and len(found.digest) == 64


def test_a_library_for_another_openvino_is_not_used(tmp_path):
    put(tmp_path, "2026.3.0")

    assert library.find("2026.4.1", tmp_path) == Missing(
        "the native kernels were built for OpenVINO 2026.3.0, this is 2026.4.1"
    )


def test_a_library_of_an_interrupted_build_is_not_used(tmp_path):
    put(tmp_path, "2026.4.1")
    (tmp_path / library.FACTS).unlink()

    assert isinstance(library.find("2026.4.1", tmp_path), Missing)


@pytest.mark.parametrize("gone", ["g++", "cmake"])
def test_without_tools_the_error_names_what_to_install(monkeypatch, gone):
    tools = {"g++": ["g++", "c++", "clang++"], "cmake": ["cmake"]}[gone]
    monkeypatch.setattr(build.shutil, "which", lambda name, path=None: None if name in tools else f"/usr/bin/{name}")

    with pytest.raises(SetupError, match=r"apt-get install g\+\+" if gone == "g++" else r"maskmill\[kernels\]"):
        build.build()


def test_the_error_quotes_the_compiler(monkeypatch, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text('message(FATAL_ERROR "no such header")')
    monkeypatch.setattr(library, "SOURCES", tmp_path)
    monkeypatch.setattr(library, "FOLDER", tmp_path / "lib")
    if isinstance(missing := build.tools(), str):
        pytest.skip(missing)

    with pytest.raises(SetupError, match="no such header"):
        build.build()

    assert isinstance(library.find("2026.4.1", tmp_path / "lib"), Missing)
    assert list((tmp_path / "lib").iterdir()) == []


@pytest.mark.parametrize(("options", "code"), [(["--if-possible"], 0), ([], None)])
def test_without_a_compiler_the_command_fails_unless_the_build_is_optional(monkeypatch, options, code):
    monkeypatch.setattr(build, "tools", lambda: "no C++ compiler")

    done = CliRunner().invoke(kernels_command, ["build", "--force", *options], standalone_mode=False)

    if code is None:
        assert isinstance(done.exception, SetupError)
    else:
        assert (done.exception, done.return_value) == (None, code)
