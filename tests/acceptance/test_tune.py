"""`worker tune` on this machine, then `worker plan` and `worker start`."""

from __future__ import annotations

import json

from support import commands


def test_the_fastest_layout_is_saved_and_followed(installation, tmp_path, worker_log):
    settings = installation.environment | {"MASKMILL_MODEL__CACHE_DIR": str(tmp_path / "cache")}

    before = commands.run("worker", "plan", settings=settings)
    tuned = commands.run(
        "worker", "tune", "--seconds", "1", "--rounds", "1", "--accept-load", "--json", settings=settings
    )
    after = commands.run("worker", "plan", "--json", settings=settings)

    assert "`worker tune` measures layouts" in before.out
    assert tuned.code == 0, tuned.err
    [found] = tuned.lines
    rates = {row["layout"]: row["images_per_second"] for row in found["trials"]}
    assert found["best"] == max(rates, key=rates.get) and min(rates.values()) > 0
    plan = json.loads(after.out)
    assert "layout from `worker tune`" in plan["tuning"]
    assert any("set by `worker tune`" in reason for reason in plan["reasons"])
    with commands.workers(settings, worker_log):
        commands.wait_for(lambda: "event=model_loaded" in worker_log.read_text(), "a model")
    assert "layout from `worker tune`" in worker_log.read_text()
