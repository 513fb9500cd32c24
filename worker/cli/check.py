"""`worker check`: test on one screen whether this node is ready to start workers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import click

from worker.cli.network import resolved
from worker.contract import console, settings
from worker.contract.console import Exit
from worker.contract.errors import MaskmillError
from worker.contract.ledger import replication
from worker.contract.ledger.jobs import Ledger
from worker.contract.s3url import S3Url
from worker.contract.settings import Settings
from worker.contract.storage.s3 import ObjectStore
from worker.cpu import pinning, placement, topology
from worker.cpu.kernel import format_cpu_list
from worker.model.format.variant import Bundle
from worker.model.loading import find_bundle, load_engine, recommendation
from worker.node import tuned_plan

_NATIVE = {
    "deformable_convolution": "deformable convolutions",
    "layer_norm": "layer norms",
    "window_attention": "window attention",
}
"""Operations with native kernels. Those of an encoder are named where they run: elsewhere there is nothing to mend."""


@dataclass(frozen=True)
class Finding:
    """The result of one check: a line of the screen."""

    name: str
    passed: bool
    text: str


@click.command("check")
@click.option("--bucket", help="Bucket or s3:// prefix to list, instead of the list of all buckets.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per check.")
def check_command(*, bucket: str | None, as_json: bool) -> int:
    """Check whether this node is ready to start workers.

    Checks Redis, S3, pinning and memory, the model bundle and the network, one by one. Exits with 1 if a check fails;
    its line names the remedy.
    """
    config, network = resolved(settings.load())
    findings = Checks(config, bucket, network.why).run()
    for finding in findings:
        if as_json:
            console.print_json({"check": finding.name, "ok": finding.passed, "text": finding.text})
        else:
            mark = "[green]ok  [/]" if finding.passed else "[red]FAIL[/]"
            console.out.print(f"{mark} {finding.name:<8} ", end="")
            console.out.print(finding.text, markup=False, soft_wrap=True)
    return Exit.OK if all(finding.passed for finding in findings) else Exit.SETUP


class Checks:
    """The checks, ordered so that a failure may explain the ones after it."""

    def __init__(self, config: Settings, bucket: str | None, network: str = "") -> None:
        self._config, self._bucket, self._network_note = config, bucket, network
        self._plan: placement.Plan | None = None
        self._bundle: Bundle | None = None

    def run(self) -> list[Finding]:
        """Run the checks and return all findings; the network is checked only if plan and bundle are valid."""
        findings = [
            self._one("redis", self._redis),
            *([self._one("failover", self._failover)] if self._fails_over else []),
            self._one("s3", self._s3),
            self._one("pinning", self._pinning),
            self._one("bundle", self._find_bundle),
        ]
        if self._plan is not None and self._bundle is not None:
            findings.append(self._one("network", self._network))
        return findings

    def _one(self, name: str, check: Callable[[], str]) -> Finding:
        try:
            return Finding(name, True, check())
        except MaskmillError as error:
            return Finding(name, False, str(error))

    def _redis(self) -> str:
        with Ledger(self._config.redis) as ledger:
            facts = ledger.connection.check()
        volatile = "" if facts["append_only"] == "yes" else "; its append-only file is off: a restart of it loses jobs"
        return f"{facts['server']} {facts['version']} at {self._config.redis.url}{volatile}"

    @property
    def _fails_over(self) -> bool:
        """Whether the settings expect Redis to have replicas."""
        return self._config.redis.sentinels() is not None or self._config.redis.wait_replicas > 0

    def _failover(self) -> str:
        with Ledger(self._config.redis) as ledger:
            found = replication.check(ledger.connection, self._config.redis)
        return "; ".join([*found.facts, *(f"WARNING: {warning}" for warning in found.warnings)])

    def _s3(self) -> str:
        with ObjectStore(self._config.s3) as store:
            endpoint = self._config.s3.endpoint_url or f"AWS {self._config.s3.region}"
            if self._bucket is None:
                store.reach()
                return f"{endpoint} accepts the credentials"
            folder = S3Url.folder(self._bucket if "://" in self._bucket else f"s3://{self._bucket}/")
            store.check(folder)
            return f"{folder} at {endpoint} can be listed"

    def _pinning(self) -> str:
        pinning.refuse_forbidden_variables(os.environ)
        machine = topology.read()
        tuned = tuned_plan.tuned_settings(machine, self._config.plan, self._config.model)
        self._plan = placement.plan(machine, tuned.plan, set_by=tuned.set_by)
        count = len(self._plan.core_sets)
        processes = f"{count} {'process' if count == 1 else 'processes'}"
        sets = "; ".join(format_cpu_list(cores.cpus) for cores in self._plan.core_sets)
        memory = f"{self._plan.memory_needed_mib} of {self._plan.memory_usable_mib} MiB"
        return f"{processes} on CPUs {sets}; peak memory {memory}"

    def _find_bundle(self) -> str:
        with ObjectStore(self._config.s3) as store:
            self._bundle = find_bundle(self._config, store, recommendation())
        notes = filter(None, (self._network_note, *self._bundle.warnings))
        warnings = "".join(f"; {note}" for note in notes)
        return f"{self._bundle.source}: {self._bundle.reason}{warnings}"

    def _network(self) -> str:
        if self._plan is None or self._bundle is None:
            raise AssertionError("run() calls this only after both checks passed")
        cores = self._plan.core_sets[0]
        pinning.pin(cores.cpus)  # before OpenVINO reads the affinity mask, as in the supervisor
        with load_engine(
            self._config, self._bundle, recommendation(), streams=cores.streams, threads=cores.threads
        ) as engine:
            seconds = engine.warm_up()
            facts = engine.describe()
        native = "".join(
            f"{words}: {facts[name]}, "
            for name, words in _NATIVE.items()
            if name == "deformable_convolution" or " of " in facts[name]
        )
        return (
            f"compiled in {facts['load_seconds']:.1f} s, float part in {facts['inference_precision']}, {native}"
            f"{facts['requests']} images on {cores.streams} streams in {seconds:.2f} s"
        )
