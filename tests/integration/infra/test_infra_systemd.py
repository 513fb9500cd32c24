"""The systemd units, checked with systemd's own tools."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support import validators
from support.commands import BIN
from support.validators import INFRA
from worker.contract import settings
from worker.contract.settings import Settings

UNITS = INFRA / "systemd"
SERVICE = "maskmill-worker@.service"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Copy the units to a folder, with the path of this installation's `worker`."""
    for path in UNITS.iterdir():
        shutil.copy(path, tmp_path)
    text = (UNITS / SERVICE).read_text("utf-8")
    (tmp_path / SERVICE).write_text(text.replace("/opt/maskmill/bin/worker", str(BIN / "worker")))
    (tmp_path / SERVICE.replace("@", "@all")).symlink_to(SERVICE)
    return tmp_path


def section(name: str) -> dict[str, list[str]]:
    """Return the keys of a section of the service; a key may have several values."""
    found: dict[str, list[str]] = {}
    text = (UNITS / SERVICE).read_text("utf-8").partition(f"[{name}]")[2].partition("\n[")[0]
    for key, value in re.findall(r"^([A-Za-z]+)=(.*)$", text, flags=re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


def test_systemd_reports_nothing(installed):
    analyze = validators.need("systemd-analyze", "systemd")

    # An unknown key or an invalid value only prints a line, so the output must be empty.
    for unit in (SERVICE.replace("@", "@all"), "maskmill.slice"):
        assert validators.run(analyze, "verify", f"./{unit}", cwd=installed) == ""


def test_a_misspelt_key_is_reported(installed):
    analyze = validators.need("systemd-analyze", "systemd")
    text = (installed / SERVICE).read_text().replace("OOMPolicy=", "OOMPolizy=")
    (installed / SERVICE).write_text(text)

    assert "OOMPolizy" in validators.run(analyze, "verify", f"./{SERVICE.replace('@', '@all')}", cwd=installed)


def test_the_exposure_of_the_service_is_minimal(installed):
    analyze = validators.need("systemd-analyze", "systemd")

    # Exit status 1 above the threshold, in tenths. The rest is the network and executable memory made at run time.
    validators.run(
        analyze, "security", "--offline=true", "--threshold=16", f"./{SERVICE.replace('@', '@all')}", cwd=installed
    )


def test_it_stops_gracefully():
    service = section("Service")
    [seconds] = [re.fullmatch(r"(\d+)s", value) for value in service["TimeoutStopSec"]]

    assert service["KillMode"] == ["mixed"] and service["OOMPolicy"] == ["continue"]
    assert float(seconds[1]) > Settings().worker.grace_seconds


def test_it_has_limits_on_memory_and_processes():
    service = section("Service")

    assert service["MemoryMax"] == ["90%"] and service["MemorySwapMax"] == ["0"] and service["TasksMax"] == ["4096"]


def test_its_settings_exist(monkeypatch, tmp_path):
    """Loads the example of /etc/maskmill/worker.env with a shell, as in the guide, and the variables of the unit."""
    (tmp_path / "MASKMILL_REDIS__PASSWORD").write_text("from-a-file")
    shell = ["sh", "-c", f"set -a; . {UNITS}/worker.env; env -0"]
    given = subprocess.run(shell, env={}, capture_output=True, text=True, check=True).stdout
    for pair in given.split("\0"):
        if pair.startswith("MASKMILL_"):
            monkeypatch.setenv(*pair.split("=", 1))
    specifiers = {"%H": "rack-7", "%i": "node0", "/etc/maskmill/secrets": str(tmp_path)}
    for line in section("Service")["Environment"]:
        name, _, value = line.partition("=")
        for specifier, text in specifiers.items():
            value = value.replace(specifier, text)
        monkeypatch.setenv(name, value)

    found = settings.load()

    assert found.worker.node_name == "rack-7-node0" and found.s3.allow == ("photos", "masks", "models/birefnet_lite/")
    assert found.redis.password.get_secret_value() == "from-a-file" and found.metrics.port == 9470
