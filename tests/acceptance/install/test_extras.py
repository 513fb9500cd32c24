"""Every extra in an empty environment, with the versions of dev.lock."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from support import onnx_networks
from support.birefnet_weights import stand_in_state_dict
from support.environments import ROOT, THIS_PYTHON, Environment, missing_of, pythons, submit

NOBODY = 65534


@pytest.fixture
def tested_versions(tmp_path: Path) -> Path:
    """The versions of dev.lock as constraints: what a new release of a library breaks is not found here."""
    pins = re.findall(r"^[A-Za-z0-9][^ \n]*==[^\\\n]*", (ROOT / "dev.lock").read_text("utf-8"), re.MULTILINE)
    path = tmp_path / "constraints.txt"
    path.write_text("\n".join(pins))
    return path


@pytest.fixture
def install(built, make_environment, tested_versions) -> Callable[[str], Environment]:
    def install(extra: str) -> Environment:
        environment = make_environment(THIS_PYTHON)
        environment.install("--constraint", tested_versions, built.with_extras(extra))
        missing = missing_of(environment)
        assert not [command for command, needs in missing.items() if needs.endswith(f"'maskmill[{extra}]'")]
        return environment

    return install


def test_worker_runs_a_node(install, installation, photos, worker_log):
    environment, settings = install("worker"), installation.environment
    environment.run("worker", "check", settings=settings)
    with worker_log.open("wb") as log:
        node = subprocess.Popen(
            [environment.bin / "worker", "start"], env=environment.variables(settings), stdout=log, stderr=log
        )
    try:
        submit(environment, photos, f"s3://{installation.bucket}/masks/", settings)
    finally:
        node.terminate()
        assert node.wait(60) == 0, worker_log.read_text()


def test_standalone_runs_services_for_an_ordinary_user(built, tested_versions):
    """Also without a home. In CI all other tests run as root."""
    for_all = [program for program in pythons().values() if runs_for_nobody(program)]
    if os.geteuid() == 0 and not for_all:
        pytest.skip("other users can run no Python 3.11 to 3.13 here: apt-get install python3")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = Environment.new(folder / "environment", for_all[0] if for_all else THIS_PYTHON)
        environment.install("--constraint", tested_versions, built.with_extras("standalone"))
        home = folder / "home"
        home.mkdir()
        user = {}
        if os.geteuid() == 0:
            folder.chmod(0o755)
            os.chown(home, NOBODY, NOBODY)
            user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        list_jobs = ("--", "producer", "list", "--json")
        done = subprocess.run(
            [environment.bin / "worker", "standalone", "--no-workers", "--state", home / "state", *list_jobs],
            env=environment.variables({"HOME": "/nonexistent"}),
            cwd=home,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            **user,
        )

        assert done.returncode == 0, done.stdout + done.stderr
        with_workers = environment.run("worker", "standalone", "--state", home / "other", code=1).err
        assert with_workers.endswith("needs OpenVINO: pip install 'maskmill[worker]'\n")


def runs_for_nobody(program: Path) -> bool:
    if os.geteuid() != 0:
        return False
    try:
        done = subprocess.run([program, "-I", "-S", "-c", ""], user=NOBODY, group=NOBODY, extra_groups=[], check=False)
    except PermissionError:
        return False
    return done.returncode == 0


def test_import_imports_a_network(install, tmp_path):
    network = onnx_networks.save(onnx_networks.of_form("logits"), tmp_path / "own.onnx")
    environment = install("import")

    fed = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
    done = environment.run("worker", "model", "import", network, "--output", tmp_path / "bundle", *fed, cwd=tmp_path)

    assert "not verified" not in done.out + done.err


def test_hub_and_convert_build_a_network(install, tmp_path):
    save_file(stand_in_state_dict(), tmp_path / "model.safetensors")
    environment = install("convert")
    environment.run("python", "-I", "-c", "import huggingface_hub, nncf, py_sod_metrics")

    options = ("--size", "64", "--precision", "fp32", "--tile-order", "rows", "--force")
    bundle = tmp_path / "bundle"
    environment.run(
        *("worker", "model", "convert", "--checkpoint", tmp_path / "model.safetensors", "--output", bundle, *options)
    )

    assert list(bundle.rglob("*.xml"))


def test_heif_reads_the_pictures_of_telephones(install):
    code = "from support.heif_files import GRID; from worker.images.decode import decode; "
    code += "from worker.contract.settings import LimitSettings; print(decode(GRID, LimitSettings()).size)"

    # Not isolated: only the file of the test comes from the tests.
    done = install("heif").run("python", "-c", f"import sys; sys.path.append({str(ROOT / 'tests')!r}); {code}")

    assert done.out.strip() == "(120, 110)"


def test_kernels_and_bench_have_their_tools(install, tmp_path):
    environment = install("kernels,bench")

    assert "run `worker kernels build`" in environment.run("worker", "kernels", "show", code=1).out
    assert environment.run("cmake", "--version").out and environment.run("ninja", "--version").out
    environment.run("worker", "bench", "images", "--quick", "--output", tmp_path / "bench")
    assert list((tmp_path / "bench").glob("*.png"))


def test_flower_finds_the_app(install, installation):
    shown = install("flower").run("celery", "-A", "worker.app", "flower", "--help", settings=installation.environment)

    assert "Web based tool" in shown.out


def test_parquet_and_otel_serve_a_producer(install, photos, running_installation, tmp_path):
    environment, settings = install("parquet,otel"), running_installation.environment
    assert "worker start" in missing_of(environment)
    collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    listed = environment.run("producer", "list", settings=settings | collector)
    assert "tracing_unavailable" not in listed.err

    job = submit(environment, photos, f"s3://{running_installation.bucket}/table/", settings)
    table = tmp_path / "table.parquet"
    environment.run("producer", "results", job, "--format", "parquet", "--output", table, settings=settings)

    assert table.read_bytes()[:4] == b"PAR1"


def test_airflow_with_its_constraints_then_maskmill(built, make_environment, tmp_path):
    """The two steps of producer/README.md. The real file of constraints is not in a package; this one is like it.

    It pins what Airflow was tested with, in versions of its own: here an older rich than maskmill needs.
    """
    lock = (ROOT / "tests/environments/airflow.lock").read_text("utf-8")
    pins = [pin.strip() for pin in re.findall(r"^[a-z][^ \n]*==[^\n\\]+", lock, re.MULTILINE)]
    [airflow] = [pin for pin in pins if pin.startswith("apache-airflow==")]
    constraints = tmp_path / "constraints-3.12.txt"
    constraints.write_text("\n".join("rich==13.9.4" if pin.startswith("rich==") else pin for pin in pins))
    steps = re.findall(r"^pip install (.*apache-airflow.*)$", (ROOT / "producer/README.md").read_text("utf-8"), re.M)
    assert len(steps) == 2 and all(shlex.split(step)[0] == airflow for step in steps)
    environment = make_environment(THIS_PYTHON)

    environment.install(*(str(constraints) if word == constraints.name else word for word in shlex.split(steps[0])))
    before = versions(environment)
    environment.install(*shlex.split(steps[1].replace("maskmill[airflow]", built.with_extras("airflow"))))
    after = versions(environment)

    assert before["rich"] == "13.9.4" != after["rich"]
    assert f"apache-airflow=={before['apache-airflow']}" == f"apache-airflow=={after['apache-airflow']}" == airflow
    assert "openvino" not in after
    environment.run("python", "-I", "-c", "import producer.integrations.airflow")


def versions(environment: Environment) -> dict[str, str]:
    """Return distribution -> version of all that is installed."""
    listed = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    return dict(json.loads(environment.run("python", "-I", "-c", listed).out))
