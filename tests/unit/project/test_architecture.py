"""Import rules: which packages may import which, which modules use a library, and what light entry points load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("worker", "producer")

# Library -> the only files or folders that may import it.
ONLY_IN = {
    "boto3": ("worker/contract/storage/s3.py",),
    "botocore": ("worker/contract/storage/s3.py",),
    "redis": ("worker/contract/", "worker/consumer/lease.py", "worker/standalone/valkey.py"),
    "openvino": (
        "worker/model/inference/engine.py",
        "worker/model/inference/graph.py",
        "worker/model/inference/runtime.py",
        "worker/convert/",
    ),
    "PIL": (
        "worker/images/",
        "worker/bench/images.py",
        "worker/training/",
        "producer/report/thumbnails.py",
    ),
    "isal": ("worker/images/png.py",),
    "cykooz_resizer": ("worker/images/resize.py",),
    "torch": ("worker/training/",),
    "scipy": ("worker/training/",),
    "opentelemetry": ("worker/contract/tracing.py",),
    "OpenEXR": ("worker/training/",),
    "jinja2": ("producer/report/render.py",),
    "celery": (
        "worker/contract/queue/celery_app.py",
        "worker/contract/queue/dispatcher.py",
        "worker/consumer/app.py",
        "worker/runner/chunks.py",
        "worker/consumer/lease.py",
        "worker/consumer/heartbeat.py",
        "worker/consumer/prefetch.py",
        "worker/consumer/watchdog.py",
        "producer/submit.py",
        "worker/bench/plain_celery.py",
    ),
    "click": ("worker/contract/console.py", "worker/cli/", "producer/cli/"),
    "pyarrow": ("producer/tables.py",),
    "huggingface_hub": ("worker/model/sources/hub_client.py",),
    "nncf": ("worker/convert/",),
    "safetensors": ("worker/convert/",),
    "rich": ("worker/contract/console.py", "worker/cli/", "producer/cli/", "producer/report/render.py"),
}


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports() -> dict[str, set[str]]:
    known = modules()
    return {name: imports(path) & set(known) - {name} for name, path in known.items()}


def test_worker_never_imports_producer():
    for name, path in modules().items():
        if name.startswith("worker"):
            assert not any(used.split(".")[0] == "producer" for used in imports(path)), name


def test_producer_imports_only_the_contract():
    for name, path in modules().items():
        if name.startswith("producer"):
            outside = {used for used in imports(path) if used.split(".")[0] == "worker"}
            assert all(used == "worker" or used.startswith("worker.contract") for used in outside), name


def test_the_contract_imports_only_itself():
    for name, used in own_imports().items():
        if name.startswith("worker.contract"):
            assert all(other.startswith("worker.contract") or other == "worker" for other in used), name


def test_the_cli_does_not_import_the_runner():
    for name, used in own_imports().items():
        if name.startswith("worker.cli"):
            assert not any(other.startswith("worker.runner") for other in used), name


def test_nothing_imports_the_app():
    assert not [name for name, used in own_imports().items() if "worker.app" in used]


def test_there_are_no_import_cycles():
    graph = own_imports()
    state: dict[str, int] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert state.get(name) != 1, f"cycle: {' -> '.join((*trail, name))}"
        if name in state:
            return
        state[name] = 1
        for other in graph[name]:
            if not name.startswith(f"{other}."):  # importing a module imports its package, which is no cycle
                visit(other, (*trail, name))
        state[name] = 2

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_is_imported_only_where_allowed(library):
    users = {
        str(path.relative_to(ROOT))
        for path in modules().values()
        if any(used.split(".")[0] == library for used in imports(path))
    }
    strangers = {user for user in users if not user.startswith(ONLY_IN[library])}
    assert not strangers


@pytest.mark.parametrize(
    "module",
    ["producer", "producer.cli", "producer.client", "worker", "worker.contract.queue.celery_app", "worker.cli"],
)
def test_light_entry_points_stay_light(module):
    code = f"import sys, {module}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert not {"openvino", "numpy", "PIL"} & set(loaded.stdout.split())


def test_the_package_root_imports_nothing():
    assert imports(ROOT / "worker" / "__init__.py") == set()
