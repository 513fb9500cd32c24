"""`worker check`: one screen that tells whether this node is fit to start."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import click

from worker.contract import console, settings
from worker.contract.console import Exit
from worker.contract.errors import MaskmillError
from worker.contract.ledger.jobs import Ledger
from worker.contract.settings import Settings
from worker.contract.storage.s3 import ObjectStore, S3Url
from worker.cpu import pinning, placement, topology
from worker.cpu.kernel import format_cpu_list
from worker.model.format.variant import Bundle
from worker.model.loading import find_bundle, load_engine, recommendation
from worker.node import tuned_plan


@dataclass(frozen=True)
class Finding:
    """One line of the screen."""

    what: str
    fit: bool
    text: str


@click.command("check")
@click.option("--bucket", help="Also look into this bucket or s3:// prefix.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line of the screen.")
def check_command(*, bucket: str | None, as_json: bool) -> int:
    """Test Redis, S3, pinning, memory and the model bundle one by one; exit 1 and a remedy when something is amiss."""
    config = settings.load()
    findings = Checks(config, bucket).run()
    for finding in findings:
        if as_json:
            console.print_json({"check": finding.what, "ok": finding.fit, "text": finding.text})
        else:
            mark = "[green]ok  [/]" if finding.fit else "[red]FAIL[/]"
            console.out.print(f"{mark} {finding.what:<8} ", end="")
            console.out.print(finding.text, markup=False, soft_wrap=True)
    return Exit.OK if all(finding.fit for finding in findings) else Exit.SETUP


class Checks:
    """The checks, in the order in which a failure explains the next one."""

    def __init__(self, config: Settings, bucket: str | None) -> None:
        self._config, self._bucket = config, bucket
        self._plan: placement.Plan | None = None
        self._bundle: Bundle | None = None

    def run(self) -> list[Finding]:
        """All findings; a later check whose basis is missing is left out."""
        findings = [
            self._one("redis", self._redis),
            self._one("s3", self._s3),
            self._one("pinning", self._pinning),
            self._one("bundle", self._find_bundle),
        ]
        if self._plan is not None and self._bundle is not None:
            findings.append(self._one("network", self._network))
        return findings

    def _one(self, what: str, check: Callable[[], str]) -> Finding:
        try:
            return Finding(what, True, check())
        except MaskmillError as error:
            return Finding(what, False, str(error))

    def _redis(self) -> str:
        with Ledger(self._config.redis) as ledger:
            facts = ledger.connection.check()
        lasting = "" if facts["append_only"] == "yes" else "; not append-only, so a restart of it loses jobs"
        return f"{facts['server']} {facts['version']} at {self._config.redis.url}{lasting}"

    def _s3(self) -> str:
        with ObjectStore(self._config.s3) as store:
            place = self._config.s3.endpoint_url or f"AWS {self._config.s3.region}"
            if self._bucket is None:
                store.reach()
                return f"{place} accepts the credentials"
            folder = S3Url.folder(self._bucket if "://" in self._bucket else f"s3://{self._bucket}/")
            store.check(folder)
            return f"{folder} at {place} can be listed"

    def _pinning(self) -> str:
        pinning.refuse_forbidden_variables(os.environ)
        machine = topology.read()
        tuned = tuned_plan.planned(machine, self._config.plan, self._config.model)
        self._plan = placement.plan(machine, tuned.plan, set_by=tuned.set_by)
        sets = "; ".join(format_cpu_list(cores.cpus) for cores in self._plan.core_sets)
        memory = f"{self._plan.memory_needed_mib} of {self._plan.memory_usable_mib} MiB"
        return f"{len(self._plan.core_sets)} process(es) on CPUs {sets}; {memory} at the peak"

    def _find_bundle(self) -> str:
        with ObjectStore(self._config.s3) as store:
            self._bundle = find_bundle(self._config, store, recommendation())
        warnings = "".join(f"; {warning}" for warning in self._bundle.warnings)
        return f"{self._bundle.variant.label} from {self._bundle.source}: {self._bundle.reason}{warnings}"

    def _network(self) -> str:
        if self._plan is None or self._bundle is None:
            raise AssertionError("run() calls this only when both are known")
        cores = self._plan.core_sets[0]
        pinning.pin(cores.cpus)  # before OpenVINO looks at the mask, as the supervisor does
        with load_engine(
            self._config, self._bundle, recommendation(), streams=cores.streams, threads=cores.threads
        ) as engine:
            seconds = engine.warm_up()
            facts = engine.describe()
        native = facts["deformable_convolution"]
        return (
            f"compiled in {facts['load_seconds']:.1f} s, float part in {facts['inference_precision']}, "
            f"deformable convolutions: {native}, "
            f"{facts['requests']} images on {cores.streams} streams in {seconds:.2f} s"
        )
