"""Workers that cannot start say so to those who wait for them."""

from __future__ import annotations

import pytest

from support import commands
from worker.contract.ledger.fleet import Fleet


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"MASKMILL_MODEL__SOURCE": "/nowhere"}, "/nowhere"),
        ({"MASKMILL_PLAN__PROCESSES": "5000"}, "MASKMILL_PLAN__PROCESSES"),
        # Found only by the model process: the bundle is read in time, but its variant cannot be compiled.
        ({"MASKMILL_MODEL__PRECISION": "int8wo"}, "int8wo"),
    ],
)
def test_the_reason_of_a_failed_start_reaches_the_producer(installation, ledger, tmp_path, broken, reason):
    settings = installation.environment | {"MASKMILL_WORKER__RESTART_LIMIT": "1"}
    done = commands.run("worker", "start", settings=settings | broken)

    assert done.code == 1, done.err
    failure = Fleet(ledger.connection).last_failure()
    assert failure is not None and reason in failure.reason, (failure, done.err)

    (tmp_path / "a.jpg").write_bytes(b"no picture")
    dest = f"s3://{installation.bucket}/out/"
    waited = commands.run(
        "producer", "submit", str(tmp_path / "a.jpg"), dest, "--wait", "--timeout", "1", settings=settings
    )
    assert waited.code == 6, waited.err
    assert all(f"no live worker; last reason: {failure.reason}" in line["waiting"] for line in waited.lines[1:])
    shown = commands.run("producer", "status", waited.lines[0]["job"], settings=settings)
    assert f"no live worker; last reason: {failure.reason}" in shown.out
