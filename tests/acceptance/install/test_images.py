"""The steps of the Dockerfiles and of the systemd guide, run in folders that stand in for the roots of the machines.

uv takes the place of pip. `pytest -m long tests/integration/infra` runs the build stages with pip and compiles the
kernels.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from support import commands, dockerfile
from support.environments import ROOT, THIS_PYTHON, Environment, pythons, submit, uv
from support.installation import Installation
from worker.standalone import ports

DOCKER = ROOT / "infra" / "docker"
GUIDE = (ROOT / "infra" / "README.md").read_text("utf-8").partition("### A Xeon node with systemd")[2]
NOT_HERE = ("apt-get ", "systemctl ", "journalctl ")
"""Commands of the guide that change the machine itself."""


def of_image() -> Path:
    """Return the Python of the images if it is at hand, else this one."""
    wanted = re.search(r"PYTHON_TAG=([\d.]+)", (DOCKER / "worker.Dockerfile").read_text("utf-8"))[1]
    return next((path for version, path in pythons().items() if version.startswith(f"{wanted}.")), THIS_PYTHON)


def of_debian() -> Path:
    """Return the system's own Python if maskmill supports it, else this one."""
    return next((path for path in pythons().values() if path.parent == Path("/usr/bin")), THIS_PYTHON)


@pytest.fixture
def make_root(tmp_path: Path) -> Callable[[Path], dockerfile.Root]:
    """Return a function that creates an empty root with this Python as `python` and `python3`."""

    def make(python: Path) -> dockerfile.Root:
        (tmp_path / "bin").mkdir()
        for name in ("python", "python3"):
            (tmp_path / "bin" / name).symlink_to(python)
        kept = {name: value for name, value in os.environ.items() if not re.match("VIRTUAL_ENV|PYTHON|PYENV", name)}
        kept["PATH"] = f"{tmp_path}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        (tmp_path / "root").mkdir()
        return dockerfile.Root(tmp_path / "root", ROOT, kept, uv=uv())

    return make


def test_the_producer_image(make_root, running_installation, photos):
    stages = dockerfile.stages(DOCKER / "producer.Dockerfile")
    root = make_root(of_image())

    root.execute(stages["build"])

    installed = Environment(root.folder / "opt" / "maskmill")
    last = list(stages.values())[-1]
    assert "submit" in installed.run(*words(last, "ENTRYPOINT"), *words(last, "CMD")).out
    job = submit(installed, photos, f"s3://{running_installation.bucket}/image/", running_installation.environment)
    installed.run("producer", "report", job, settings=running_installation.environment)


def words(stage: list[dockerfile.Instruction], name: str) -> list[str]:
    """Return the words of the last instruction with this name."""
    return dockerfile.exec_form(dockerfile.last(stage, name))


def test_the_images_of_worker_and_flower(make_root, installation):
    stages = dockerfile.stages(DOCKER / "worker.Dockerfile")
    root = make_root(of_image())

    root.execute(stages["build"])

    installed = Environment(root.folder / "opt" / "maskmill")
    assert not list((installed.folder / "bin").glob("pip*"))
    settings = installation.environment
    assert "FAIL" not in installed.run("worker", "check", settings=settings).out
    assert "passed" in installed.run("worker", "model", "verify", "builtin:contrast", settings=settings).out
    # One line for each arithmetic; without kernels it prints a message instead.
    assert installed.run("worker", "kernels", "show").out.startswith("f32 ")

    root.execute(stages["build-flower"])  # on top of `build`

    flower_answers(installed, stages["flower"], installation)


def flower_answers(installed: Environment, stage: list[dockerfile.Instruction], installation: Installation) -> None:
    """Run the entry point of the image on a free port until its health check passes."""
    port = str(ports.choose({"flower": (0,)})["flower"])

    own = f"--address=127.0.0.1 --port={port}".split()  # the last one counts
    program, *arguments = [*words(stage, "ENTRYPOINT"), *words(stage, "CMD"), *own]
    variables = installed.variables(installation.environment)
    flower = subprocess.Popen([installed.bin / program, *arguments], env=variables, stderr=subprocess.DEVNULL)
    check, *more = [word.replace("5555", port) for word in words(stage, "HEALTHCHECK")]
    try:
        commands.wait_for(lambda: healthy([str(installed.bin / check), *more], variables), "Flower to be healthy", 90)
    finally:
        flower.terminate()
        flower.wait(30)


def healthy(check: list[str], variables: Mapping[str, str]) -> bool:
    return subprocess.run(check, env=variables, capture_output=True, check=False).returncode == 0


def test_the_systemd_guide(make_root, built, installation):
    """Everything but the commands that change the machine; the group of the files is left out too."""
    block = re.search(r"```\n(.*?)```", GUIDE, re.DOTALL)[1]
    lines = [line for line in block.splitlines() if not line.startswith(NOT_HERE)]
    assert len(lines) == len(block.splitlines()) - 4
    root = make_root(of_debian())
    shutil.copytree(ROOT / "infra", root.folder / "infra")
    shutil.copy(built.wheel, root.folder)
    (root.folder / "redis-password").write_text("secret")
    for folder in ("usr/lib/sysusers.d", "etc/systemd/system"):
        (root.folder / folder).mkdir(parents=True)

    for line in lines:
        root.run(line.replace(" -g maskmill", "").replace("systemd-sysusers", f"systemd-sysusers --root={root.folder}"))

    assert "maskmill:" in (root.folder / "etc" / "passwd").read_text()
    assert (root.folder / "etc/systemd/system/maskmill-worker@.service").is_file()
    installed = Environment(root.folder / "opt" / "maskmill")
    secrets = {"MASKMILL_SECRETS_DIR": str(root.folder / "etc/maskmill/secrets")}
    [password] = [
        line
        for line in installed.run("worker", "config", "--json", settings=secrets).lines
        if line["setting"] == "MASKMILL_REDIS__PASSWORD"
    ]
    assert password["value"] and password["origin"] != "default"
    installed.run("worker", "check", settings=installation.environment)
