"""Wheel and sdist in empty environments, with the newest versions that they allow."""

from __future__ import annotations

import tarfile
import zipfile

from support.environments import THIS_PYTHON, build, missing_of, submit


def test_the_sdist_makes_the_same_wheel(built, tmp_path):
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    [project] = tmp_path.iterdir()

    build(project, tmp_path / "dist", "wheel")

    [again] = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(built.wheel) as one, zipfile.ZipFile(again) as other:
        assert {(i.filename, i.CRC) for i in one.infolist()} == {(i.filename, i.CRC) for i in other.infolist()}


def test_the_sdist_installs(built, make_environment):
    environment = make_environment(THIS_PYTHON)

    environment.install(built.sdist)

    assert "producer, version" in environment.run("producer", "--version").out


# --- Without lock files: the newest versions that the wheel allows ---


def test_the_base_is_a_producer(environment, built, photos, running_installation, tmp_path):
    settings = running_installation.environment
    environment.install(built.wheel)

    missing = missing_of(environment)
    assert not [command for command in missing if command.startswith(("producer", "maskmill submit"))]
    assert {"worker start", "worker check", "worker standalone", "maskmill cut"} <= set(missing)
    refused = environment.run("worker", "start", settings=settings, code=1)
    assert refused.err == "error (setup): `worker start` needs OpenVINO: pip install 'maskmill[worker]'\n"

    job = submit(environment, photos, f"s3://{running_installation.bucket}/{tmp_path.name}/", settings)
    assert len(environment.run("producer", "results", job, settings=settings).lines) == 1
    environment.run("producer", "download", job, tmp_path / "masks", settings=settings)
    assert [path.name for path in (tmp_path / "masks").rglob("*.png")] == ["shoe.png"]
    environment.run("producer", "report", job, "--output", tmp_path / "report.html", settings=settings)
    assert "<figure" in (tmp_path / "report.html").read_text("utf-8")


def test_cut_is_everything_on_one_machine(environment, built, photos, cache, tmp_path):
    environment.install(built.with_extras("cut"))

    assert missing_of(environment) == {}
    own = cache | {"MASKMILL_MODEL__SOURCE": "builtin:starter", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.run("maskmill", "cut", photos, tmp_path / "cutouts", settings=own)
    assert [path.name for path in (tmp_path / "cutouts").rglob("*.png")] == ["shoe.png"]
