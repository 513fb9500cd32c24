"""Import rules that `.importlinter` cannot express, and a check that its contracts detect a forbidden import."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("worker", "producer")

# Libraries of extras, imported by name when needed -> the only modules that may import them.
BY_NAME_ONLY_IN = {
    "huggingface_hub": ("worker/model/sources/hub_client.py",),
    "matplotlib": ("worker/bench/harness/plot_style.py",),
    "nncf": ("worker/convert/", "worker/training/"),
    "onnxruntime": ("worker/bench/", "worker/convert/importing/"),
    "opentelemetry": ("worker/contract/tracing.py",),
    "openvino": ("worker/model/inference/", "worker/bench/benchmark_app.py", "worker/bench/peers/script.py"),
    "pi_heif": ("worker/images/heif.py",),
    "py_sod_metrics": ("worker/convert/evaluate/scores.py",),
    "rembg": ("worker/bench/quality/rembg_child.py",),
    "safetensors": ("worker/convert/",),
    "torch": ("worker/convert/birefnet/checkpoint.py", "worker/bench/"),
}


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


def imported_by_name(path: Path) -> set[str]:
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    names = [call.args[0] for call in calls if ast.unparse(call.func) == "importlib.import_module"]
    return {name.value.split(".")[0] for name in names if isinstance(name, ast.Constant)} - set(PACKAGES)


def test_each_library_imported_by_name_has_one_importer():
    users = {str(path.relative_to(ROOT)): imported_by_name(path) for path in modules()}

    assert set().union(*users.values()) == set(BY_NAME_ONLY_IN)
    others = {
        (library, user)
        for user, libraries in users.items()
        for library in libraries
        if not user.startswith(BY_NAME_ONLY_IN[library])
    }
    assert not others


@pytest.mark.parametrize(
    "module",
    [
        *("producer", "producer.cli", "producer.client", "worker", "worker.contract.queue.celery_app", "worker.cli"),
        *("worker.umbrella.commands", "worker.contract.local_services"),
    ],
)
def test_light_entry_points_stay_light(module):
    code = f"import sys, {module}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert not {"openvino", "numpy", "PIL"} & set(loaded.stdout.split())


def test_the_package_root_imports_nothing():
    tree = ast.parse((ROOT / "worker" / "__init__.py").read_text("utf-8"))

    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the Python files of both packages, and of the contracts."""
    root = tmp_path_factory.mktemp("copy")
    for path in modules():
        target = root / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.copy(ROOT / ".importlinter", root)
    return root


def broken_contracts(root: Path) -> list[str]:
    """Return the names of the contracts that import-linter reports as broken."""
    program = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run(
        [program, "--no-cache"], cwd=root, capture_output=True, text=True, env={"PYTHONPATH": str(root)}, check=False
    )
    assert "Contracts:" in run.stdout, run.stdout + run.stderr
    return [line.removesuffix(" BROKEN") for line in run.stdout.splitlines() if line.endswith(" BROKEN")]


@pytest.mark.parametrize(
    ("module", "forbidden", "contract"),
    [
        ("producer/plan.py", "worker.cpu.topology", "The producer imports only the worker's contract"),
        ("worker/cli/start.py", "producer.client", "No room of the worker but the umbrella imports the producer"),
        ("worker/cli/start.py", "worker.umbrella.session", "Rooms of the worker, highest first"),
        ("worker/images/decode.py", "worker.runner.pipeline", "Rooms of the worker, highest first"),
        ("worker/contract/errors.py", "worker.contract.storage.s3", "Rooms of the contract, highest first"),
        ("worker/steward/feeder.py", "boto3", "boto3 and botocore: the S3 client"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(copy, module, forbidden, contract):
    path = copy / module
    before = path.read_text("utf-8")
    try:
        path.write_text(before + f"\nimport {forbidden}\n", "utf-8")
        broken = broken_contracts(copy)
    finally:
        path.write_text(before, "utf-8")

    assert any(name.startswith(contract) for name in broken), broken
