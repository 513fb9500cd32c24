"""`worker plan`: show the core sets, streams and threads that `worker start` would use."""

from __future__ import annotations

import click

from worker.cli.network import resolved
from worker.contract import console, settings
from worker.contract.console import Exit
from worker.cpu import isa, placement, topology
from worker.node import tuned_plan


@click.command("plan")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def plan_command(*, as_json: bool) -> int:
    """Show the cores, streams and threads of each process.

    Every number comes with its reason. `worker tune` measures the best layout for this machine. Each number can be set
    by hand with MASKMILL_PLAN__PROCESSES, MASKMILL_PLAN__STREAMS and MASKMILL_PLAN__THREADS.
    """
    config, network = resolved(settings.load())
    machine = topology.read()
    tuned = tuned_plan.tuned_settings(machine, config.plan, config.model)
    plan = placement.plan(machine, tuned.plan, set_by=tuned.set_by)
    advice = isa.recommend(machine.flags, machine.memory_bytes)
    if as_json:
        console.print_json(
            plan.as_dict()
            | {
                "cpu": machine.model_name,
                "isa": advice.isa,
                "tuning": tuned.why,
                "network": config.model.source,
                "network_reason": network.why,
                "precisions": list(advice.precisions),
                "inference_precision": advice.inference_precision,
                "precision_reasons": list(advice.why),
            }
        )
        return Exit.OK
    console.out.print(f"[bold]{machine.model_name}[/] ({advice.isa})")
    console.out.print(plan.as_text(), markup=False, soft_wrap=True)
    console.out.print(f"- {tuned.why}", markup=False, soft_wrap=True)
    console.out.print(f"network: {network.why or config.model.source}", markup=False, soft_wrap=True)
    console.out.print(
        f"precision: {', '.join(advice.precisions)}, best first; float part in {advice.inference_precision}"
    )
    for sentence in advice.why:
        console.out.print(f"- {sentence}", markup=False, soft_wrap=True)
    return Exit.OK
