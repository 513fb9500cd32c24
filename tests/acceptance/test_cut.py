"""`maskmill cut`: a folder in, a folder out, one command, nothing left behind.

All tests of a module share one folder of services, as the commands of one user do; only the model runs for real.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from support import commands
from support.local_services import assert_all_gone

pytestmark = pytest.mark.timeout(300)  # several runs of real workers in each test

S3_WORDS = re.compile(r"s3|bucket|\bmake\b", re.IGNORECASE)


def picture(path: Path, tone: int = 30, size: tuple[int, int] = (320, 240)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (200, 205, 210))
    image.paste((180, tone % 256, 40), (size[0] // 4, size[1] // 4, size[0] // 2, 3 * size[1] // 4))
    image.save(path)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A user's home: the cache below it has the one folder of services."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def user(home, cache) -> dict[str, str]:
    return cache | {"XDG_CACHE_HOME": str(home / "cache"), "MASKMILL_MODEL__SOURCE": "builtin:starter"}


@pytest.fixture(scope="module")
def services_folder(home) -> Path:
    return home / "cache" / "maskmill" / "local"


def cut(*arguments: str | Path, user: dict[str, str], cwd: Path | None = None) -> commands.Result:
    done = commands.run("maskmill", "cut", *map(str, arguments), settings=user, cwd=cwd)
    assert not S3_WORDS.search(done.out + done.err), done.out + done.err
    return done


def start(*arguments: str | Path, user: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start the command in a process group of its own, like a shell."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [str(commands.BIN / "maskmill"), "cut", *map(str, arguments)],
            env=commands.environment(user),
            stdout=file,
            stderr=subprocess.STDOUT,
            process_group=0,
        )


def written(dest: Path) -> dict[str, int]:
    """Return the outputs below a folder with their time of change in nanoseconds."""
    return {path.relative_to(dest).as_posix(): path.stat().st_mtime_ns for path in dest.rglob("*.png")}


def test_from_a_folder_to_a_folder_and_then_only_what_is_new_or_changed(home, user, services_folder):
    photos, dest = home / "my photos", home / "cut outs"
    for name in ("a.jpg", "sub/b c.png", "ünï/日本.jpg"):
        picture(photos / name)
    (photos / "sub" / "broken.jpg").write_bytes(b"not a picture")
    (photos / "notes.txt").write_text("no picture")
    names = {"a.png", "sub/b c.png", "ünï/日本.png"}

    first = cut("my photos", "cut outs", user=user, cwd=home)

    assert first.code == 3, first.out + first.err
    assert "failed: sub/broken.jpg: undecodable" in first.out and str(dest) in first.out
    assert set(written(dest)) == names
    with Image.open(dest / "a.png") as output:
        assert output.mode == "RGBA"
    report = (dest / "maskmill-report.html").read_text("utf-8")
    assert "data:image/webp" in report and str(photos) in report and "s3://" not in report
    assert_all_gone(services_folder)

    (photos / "sub" / "broken.jpg").unlink()
    before = written(dest)
    nothing = cut(photos, dest, user=user)  # from another folder, by other names of the same places

    assert nothing.code == 0 and "nothing to do" in nothing.out, nothing.out + nothing.err
    assert written(dest) == before and not (services_folder / "running.json").exists()

    picture(photos / "a.jpg", tone=200)
    picture(photos / "new.jpg")
    third = cut(photos, dest, user=user)

    assert third.code == 0 and "2 are up to date, 2 to do" in third.err, third.out + third.err
    after = written(dest)
    assert set(after) == names | {"new.png"}
    assert {name for name in names if after[name] != before[name]} == {"a.png"}
    assert_all_gone(services_folder)

    jobs = commands.run("maskmill", "list", "--json", settings=user, cwd=home)
    assert jobs.code == 0 and [job["total"] for job in jobs.lines] == [2, 4], jobs.err
    table = commands.run("maskmill", "list", settings=user).out
    assert table.count(f" {dest}") == 2 and "s3://" not in table, table
    results = commands.run("maskmill", "results", jobs.lines[1]["job"], settings=user)
    assert {line["key"]: line["outcome"] for line in results.lines}["sub/broken.jpg"] == "failed"
    assert_all_gone(services_folder)


MANY = 24
"""Pictures of a run that is interrupted after the first of them."""


def pictures_in_progress(home: Path, count: int) -> tuple[Path, Path]:
    """Return a new source and destination, with pictures that take long enough to be interrupted."""
    photos, dest = home / f"many-{time.monotonic_ns()}", home / f"out-{time.monotonic_ns()}"
    first = picture(photos / "000.jpg", size=(1600, 1200))
    for number in range(1, count):
        shutil.copyfile(first, photos / f"{number:03}.jpg")
    return photos, dest


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_keeps_what_is_done_and_goes_on(how, home, user, services_folder, tmp_path):
    photos, dest = pictures_in_progress(home, MANY)
    process = start(photos, dest, user=user, log=tmp_path / "log")
    commands.wait_for(lambda: written(dest), "the first output")

    os.kill(process.pid, how)
    code = process.wait(45)

    said = (tmp_path / "log").read_text()
    assert code == (-how if how is signal.SIGKILL else 130), said
    if how is not signal.SIGKILL:  # its workers need a moment to notice; the next run does not wait for them
        assert_all_gone(services_folder)
    kept = written(dest)
    assert 0 < len(kept) < MANY, "the picture that was done first is there, and the run did not finish: else no test"
    if how is not signal.SIGKILL:
        assert f"{len(kept)} of {MANY} pictures are done" in said and f"maskmill cut {photos} {dest}" in said
    assert not S3_WORDS.search(said), said

    again = cut(photos, dest, user=user)

    assert again.code == 0, again.out + again.err
    assert set(written(dest)) == {f"{number:03}.png" for number in range(MANY)}
    redone = [name for name, at in kept.items() if written(dest)[name] != at]
    assert len(redone) <= (8 if how is signal.SIGKILL else 0), "only outputs that were not recorded yet"
    assert_all_gone(services_folder)
    assert not list((services_folder / "runs").iterdir()), "copies of the killed run are cleaned up"
    assert not list(dest.glob("*.png.*")), "no half-written file"


def test_watch_takes_new_pictures_and_other_commands_use_its_services(home, user, services_folder, tmp_path):
    photos, dest, log = home / "watched", home / "watched-out", tmp_path / "log"
    picture(photos / "1.jpg")
    process = start(photos, dest, "--watch", user=user, log=log)
    commands.wait_for(lambda: "1.png" in written(dest), "the picture that was there")

    with (photos / "2.jpg").open("wb") as growing:  # it stays incomplete for longer than two looks
        content = picture(tmp_path / "2.jpg").read_bytes()
        for part in range(0, len(content), len(content) // 8 + 1):
            growing.write(content[part : part + len(content) // 8 + 1])
            growing.flush()
            time.sleep(0.7)
    other = cut(picture(home / "single.jpg"), home / "single-out", user=user)
    submitted = commands.run("maskmill", "submit", str(photos / "1.jpg"), str(home / "sub-out"), settings=user)
    commands.wait_for(lambda: "2.png" in written(dest), "the new picture")

    os.kill(process.pid, signal.SIGTERM)
    code = process.wait(45)

    assert code == 0 and "failed:" not in log.read_text(), log.read_text()
    assert other.code == 0 and "starting the workers" not in other.err, other.err
    assert set(written(home / "single-out")) == {"single.png"}
    assert submitted.code == 0 and set(written(home / "sub-out")) == {"1.png"}, submitted.err
    assert_all_gone(services_folder)


def test_a_network_that_cannot_run_ends_with_the_reason_and_leaves_nothing(home, user, services_folder):
    photos = picture(home / "reason" / "a.jpg").parent
    broken = home / "not-a-bundle"
    broken.mkdir(exist_ok=True)

    done = cut(photos, home / "reason-out", "--network", broken, user=user | {"MASKMILL_WORKER__RESTART_LIMIT": "1"})

    assert done.code == 1 and f"the workers have ended: {broken} holds no model" in done.err, done.out + done.err
    assert_all_gone(services_folder)
